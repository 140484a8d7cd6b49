// The latent-diffusion autoencoder (Rombach et al., 2022), KL-regularised, as SD1, SD2 and SDXL use
// it.
#ifndef LIB_NN_VAE_H_
#define LIB_NN_VAE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/nn/layers.h"

namespace distorch::nn {

struct VaeConfig {
  int64_t latent_channels = 4;
  int64_t channels = 128;  // of the first level
  std::vector<int64_t> level_channels = {128, 256, 512, 512};
  int64_t blocks_per_level = 2;  // encoder; the decoder has one more
  int64_t decoder_blocks_per_level = 3;
  bool has_quant_conv = true;  // 1×1 convolutions around the latent
};

// Down by 2 at every level but the last.
class VaeEncoder {
 public:
  VaeEncoder(const Scope& scope, const VaeConfig& config);
  ~VaeEncoder();
  // [N, 3, H, W] in −1…1, H and W multiples of the downscale -> mean and log-variance [N,
  // 2·latent_channels, h, w].
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class VaeDecoder {
 public:
  VaeDecoder(const Scope& scope, const VaeConfig& config);
  ~VaeDecoder();
  // [N, latent_channels, h, w] -> [N, 3, H, W], about −1…1.
  at::Tensor Forward(const at::Tensor& z) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class AutoencoderKl {
 public:
  AutoencoderKl(const Scope& scope, const VaeConfig& config);

  // The mean of the posterior [N, latent_channels, h, w], unscaled; the reference does not sample
  // it.
  at::Tensor Encode(const at::Tensor& x) const;
  at::Tensor Decode(const at::Tensor& z) const;
  const VaeConfig& config() const { return config_; }
  // Pixels a latent pixel covers, per side.
  int64_t downscale() const { return int64_t{1} << (config_.level_channels.size() - 1); }

 private:
  VaeConfig config_;
  VaeEncoder encoder_;
  VaeDecoder decoder_;
  std::unique_ptr<Conv2d> quant_conv_, post_quant_conv_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_VAE_H_
