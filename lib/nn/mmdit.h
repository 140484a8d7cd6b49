// The multimodal diffusion transformer of Stable Diffusion 3: "Scaling Rectified Flow Transformers
// for High-Resolution Image Synthesis" (Esser et al., 2024). Text and image have weights of their
// own and attend to each other. SD3.5 adds normalised queries and keys, and its medium size a
// second attention of the image to itself. Block names and order are the reference's.
#ifndef LIB_NN_MMDIT_H_
#define LIB_NN_MMDIT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/nn/layers.h"
#include "lib/nn/transformer_layers.h"

namespace distorch::nn {

struct MmDitConfig {
  int64_t in_channels = 16, out_channels = 16;
  int64_t width = 1536;  // heads of 64 channels
  int64_t context_width = 4096;
  int64_t pooled_width = 2048;
  int64_t position_side = 192;  // the position table is a square of patches
  bool qk_norm = false;
  std::vector<bool> dual_attention;  // one a block
};

class JointBlock;
template <typename Layers>
class Unit;

class MmDit {
 public:
  MmDit(const Scope& scope, const MmDitConfig& config);
  ~MmDit();

  // x: [N, in_channels, h, w], 1 ≤ h, w ≤ 2 · position_side; timesteps: [N] float32, 0…1000;
  // context: [N, tokens, context_width] and pooled: [N, pooled_width] in x's type. Returns the
  // model's raw output [N, out_channels, h, w].
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& timesteps, const at::Tensor& context,
                     const at::Tensor& pooled) const;

  const MmDitConfig& config() const { return config_; }

 private:
  // [1, rows · columns, width]: the middle of the table.
  at::Tensor Positions(const at::Tensor& like, int64_t rows, int64_t columns) const;

  MmDitConfig config_;
  const WeightSlot* positions_;
  Conv2d x_embedder_;
  Mlp time_embedder_, pooled_embedder_;
  Linear context_embedder_;
  std::vector<std::unique_ptr<Unit<JointBlock>>> blocks_;
  FinalLayer final_layer_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_MMDIT_H_
