// The space a model's latents live in, and how it relates to the user's (a ComfyUI LATENT).
#ifndef LIB_MODELS_LATENT_FORMAT_H_
#define LIB_MODELS_LATENT_FORMAT_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace distorch::models {

struct LatentFormat {
  int64_t channels = 4;
  int64_t downscale = 8;  // pixels a latent pixel covers, per side
  // model = (user − mean) · scale / deviation. Mean and deviation hold one value for all channels
  // or one a channel; empty: 0 and 1.
  double scale = 1.0;
  std::vector<float> mean, deviation;
  // Rough colours of a latent pixel, in the model's space, for previews: one row a channel, then
  // the bias, to RGB in −1…1. Empty where none are published: previews have false colours then.
  std::vector<std::array<float, 3>> to_rgb;
  std::array<float, 3> rgb_bias = {0, 0, 0};
  // What the file of its tiny autoencoder's decoder (lib/nn/taesd.h) begins with; empty: there is
  // none.
  std::string_view taesd;

  // [N, channels, h, w] from the user's space to the model's, and back; on any device.
  at::Tensor ToModel(const at::Tensor& latent) const;
  at::Tensor ToUser(const at::Tensor& latent) const;
};

// SD1's and SD2's.
const LatentFormat& Sd1LatentFormat();
const LatentFormat& SdxlLatentFormat();
// SDXL's autoencoder with latents normalised per channel: "Playground v2.5" (Li et al., 2024).
const LatentFormat& PlaygroundLatentFormat();
// 16 channels; SD3.5's, too.
const LatentFormat& Sd3LatentFormat();
const LatentFormat& FluxLatentFormat();

}  // namespace distorch::models

#endif  // LIB_MODELS_LATENT_FORMAT_H_
