// The space a model's latents live in, and how it relates to the user's (a ComfyUI LATENT).
#ifndef LIB_MODELS_LATENT_FORMAT_H_
#define LIB_MODELS_LATENT_FORMAT_H_

#include <array>
#include <cstdint>
#include <vector>

namespace distorch::models {

struct LatentFormat {
  int64_t channels = 4;
  int64_t downscale = 8;  // pixels a latent pixel covers, per side
  double scale = 1.0;     // model = user · scale
  // Rough colours of a latent pixel for previews: one row a channel, to RGB in −1…1.
  std::vector<std::array<float, 3>> to_rgb;
};

// SD1's and SD2's.
const LatentFormat& Sd1LatentFormat();

}  // namespace distorch::models

#endif  // LIB_MODELS_LATENT_FORMAT_H_
