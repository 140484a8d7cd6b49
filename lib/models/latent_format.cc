#include "lib/models/latent_format.h"

#include <ATen/ATen.h>

namespace distorch::models {
namespace {

at::Tensor PerChannel(const std::vector<float>& values, const at::Tensor& like) {
  return at::tensor(values, at::kFloat).view({1, -1, 1, 1}).to(like.options());
}

// The same colours for latents of the same autoencoder in another space.
void SetColours(const LatentFormat& from, LatentFormat* to) {
  to->to_rgb.resize(from.to_rgb.size());
  to->rgb_bias = from.rgb_bias;
  for (size_t c = 0; c < from.to_rgb.size(); ++c) {
    const double slope = from.scale * to->deviation[c] / to->scale;
    const double offset = from.scale * to->mean[c];
    for (size_t k = 0; k < 3; ++k) {
      to->to_rgb[c][k] = static_cast<float>(from.to_rgb[c][k] * slope);
      to->rgb_bias[k] += static_cast<float>(from.to_rgb[c][k] * offset);
    }
  }
}

}  // namespace

at::Tensor LatentFormat::ToModel(const at::Tensor& latent) const {
  const at::Tensor centred = mean.empty() ? latent : latent - PerChannel(mean, latent);
  const at::Tensor scaled = centred * scale;
  return deviation.empty() ? scaled : scaled / PerChannel(deviation, latent);
}

at::Tensor LatentFormat::ToUser(const at::Tensor& latent) const {
  const at::Tensor spread = deviation.empty() ? latent : latent * PerChannel(deviation, latent);
  const at::Tensor unscaled = spread / scale;
  return mean.empty() ? unscaled : unscaled + PerChannel(mean, latent);
}

const LatentFormat& Sd1LatentFormat() {
  // The colours are a least-squares fit published with "Decoding latents to RGB without upscaling"
  // (K. Turner, 2022).
  static const LatentFormat kFormat = {
      .channels = 4,
      .downscale = 8,
      .scale = 0.18215,
      .to_rgb = {{0.298f, 0.207f, 0.208f},
                 {0.187f, 0.286f, 0.173f},
                 {-0.158f, 0.189f, 0.264f},
                 {-0.184f, -0.271f, -0.473f}},
      .taesd = "taesd_decoder",
  };
  return kFormat;
}

const LatentFormat& SdxlLatentFormat() {
  // The colours are those of "Explaining the SDXL latent space" (T. A. Vass, 2024), brought from
  // 0…255 to −1…1.
  static const LatentFormat kFormat = {
      .channels = 4,
      .downscale = 8,
      .scale = 0.13025,
      .to_rgb = {{0.4706f, 0.4706f, 0.4706f},
                 {-0.4706f, -0.0392f, 0.0784f},
                 {0.1961f, 0.1176f, -0.0392f},
                 {-0.5490f, -0.3922f, -0.2745f}},
      .rgb_bias = {0.1765f, 0.0980f, 0.0196f},
      .taesd = "taesdxl_decoder",
  };
  return kFormat;
}

const LatentFormat& PlaygroundLatentFormat() {
  static const LatentFormat kFormat = [] {
    LatentFormat format = {
        .channels = 4,
        .downscale = 8,
        .scale = 0.5,
        .mean = {-1.6574f, 1.886f, -1.383f, 2.5155f},
        .deviation = {8.4927f, 5.9022f, 6.5498f, 5.2299f},
    };
    SetColours(SdxlLatentFormat(), &format);
    return format;
  }();
  return kFormat;
}

const LatentFormat& Sd3LatentFormat() {
  // The colours are those that Stability AI published with SD3.5.
  static const LatentFormat kFormat = {
      .channels = 16,
      .downscale = 8,
      .scale = 1.5305,
      .mean = {0.0609f},
      .to_rgb = {{-0.0645f, 0.0177f, 0.1052f},
                 {0.0028f, 0.0312f, 0.0650f},
                 {0.1848f, 0.0762f, 0.0360f},
                 {0.0944f, 0.0360f, 0.0889f},
                 {0.0897f, 0.0506f, -0.0364f},
                 {-0.0020f, 0.1203f, 0.0284f},
                 {0.0855f, 0.0118f, 0.0283f},
                 {-0.0539f, 0.0658f, 0.1047f},
                 {-0.0057f, 0.0116f, 0.0700f},
                 {-0.0412f, 0.0281f, -0.0039f},
                 {0.1106f, 0.1171f, 0.1220f},
                 {-0.0248f, 0.0682f, -0.0481f},
                 {0.0815f, 0.0846f, 0.1207f},
                 {-0.0120f, -0.0055f, -0.0867f},
                 {-0.0749f, -0.0634f, -0.0456f},
                 {-0.1418f, -0.1457f, -0.1259f}},
      .taesd = "taesd3_decoder",
  };
  return kFormat;
}

const LatentFormat& FluxLatentFormat() {
  static const LatentFormat kFormat = {
      .channels = 16,
      .downscale = 8,
      .scale = 0.3611,
      .mean = {0.1159f},
      .taesd = "taef1_decoder",
  };
  return kFormat;
}

}  // namespace distorch::models
