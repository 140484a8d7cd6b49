// The tiny autoencoder's decoder (O. Boer Bohan, "TAESD", 2023): a rough image of a latent in a
// small part of the VAE's time, for previews.
#ifndef LIB_NN_TAESD_H_
#define LIB_NN_TAESD_H_

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "lib/nn/component.h"
#include "lib/nn/layers.h"
#include "lib/nn/upsample.h"

namespace distorch::nn {

class Taesd : public Component {
 public:
  // Blocks are named as in the published files: "1", "3.conv.0", …
  Taesd(const NamedTensors* tensors, int64_t latent_channels);

  // [N, latent_channels, h, w] in the model's space, float32 on any device -> [N, 3, 8h, 8w], about
  // 0…1, there. Thread-safe; throws as LibTorch does.
  at::Tensor Decode(const at::Tensor& latents) const;

 private:
  class Block {
   public:
    explicit Block(const Scope& scope);
    at::Tensor Forward(const at::Tensor& x) const;

   private:
    Conv2d first_, second_, third_;
  };
  // Blocks at one size, and what follows them: the next size, or nothing.
  struct Stage {
    std::vector<Block> blocks;
    std::optional<UpsampleConv2d> upscale;
  };
  static std::vector<Stage> BuildStages(const Scope& scope);

  Conv2d conv_in_;
  std::vector<Stage> stages_;
  Conv2d conv_out_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_TAESD_H_
