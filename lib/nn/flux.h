// The Flux diffusion transformer (Black Forest Labs, "FLUX.1", 2024): blocks where text and image
// have weights of their own, as in MMDiT (Esser et al., 2024), then blocks over both together with
// attention and feed-forward in parallel ("Scaling Vision Transformers to 22 Billion Parameters",
// Dehghani et al., 2023); rotary positions ("RoFormer", Su et al., 2021). Block names and order are
// the reference's.
#ifndef LIB_NN_FLUX_H_
#define LIB_NN_FLUX_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "lib/nn/layers.h"
#include "lib/nn/transformer_layers.h"

namespace distorch::nn {

struct FluxConfig {
  int64_t in_channels = 16, out_channels = 16;  // of latents, before they are cut into patches
  int64_t width = 3072;                         // heads of 128 channels
  int64_t context_width = 4096;
  int64_t pooled_width = 768;
  int64_t double_blocks = 19, single_blocks = 38;
  bool guidance = true;  // told of a guidance strength (distilled classifier-free guidance)
};

class FluxDoubleBlock;
class FluxSingleBlock;
template <typename Layers>
class Unit;

class Flux {
 public:
  Flux(const Scope& scope, const FluxConfig& config);
  ~Flux();

  // x: [N, in_channels, h, w], any h and w ≥ 1; timesteps: [N] float32, 0…1; context: [N, tokens,
  // context_width] and pooled: [N, pooled_width] in x's type; guidance: [N] in x's type, read only
  // where the model takes one. Returns the model's raw output [N, out_channels, h, w].
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& timesteps, const at::Tensor& context,
                     const at::Tensor& pooled, const at::Tensor& guidance) const;

  const FluxConfig& config() const { return config_; }

 private:
  FluxConfig config_;
  Linear image_in_;
  Mlp time_in_, vector_in_;
  std::optional<Mlp> guidance_in_;
  Linear text_in_;
  std::vector<std::unique_ptr<Unit<FluxDoubleBlock>>> double_blocks_;
  std::vector<std::unique_ptr<Unit<FluxSingleBlock>>> single_blocks_;
  FinalLayer final_layer_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_FLUX_H_
