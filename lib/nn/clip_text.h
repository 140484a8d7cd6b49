// CLIP's text transformer: "Learning Transferable Visual Models From Natural Language Supervision"
// (Radford et al., 2021).
#ifndef LIB_NN_CLIP_TEXT_H_
#define LIB_NN_CLIP_TEXT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "lib/nn/layers.h"

namespace distorch::nn {

struct ClipTextConfig {
  enum class Activation { kQuickGelu, kGelu };
  int64_t vocabulary = 49408;
  int64_t positions = 77;
  int64_t width = 768;
  int64_t layers = 12;
  int64_t heads = 12;
  int64_t feed_forward = 3072;
  int64_t projection = 768;
  Activation activation = Activation::kQuickGelu;
  int64_t absent_layers = 0;  // after those that are there: Forward's `layer` counts them, too
};

class ClipTextLayer;

class ClipTextModel {
 public:
  ClipTextModel(const Scope& scope, const ClipTextConfig& config);
  ~ClipTextModel();

  // The token embeddings of ids [N, T] (int64, on the CPU, 0 ≤ id < vocabulary): [N, T, width] on
  // `device` in `dtype`, the caller's to change before Forward.
  at::Tensor Embed(const at::Tensor& ids, const at::Device& device, at::ScalarType dtype) const;

  struct Output {
    at::Tensor hidden;  // [N, T, width]: the states after the layer asked for
    at::Tensor pooled;  // [N, width]: the last layer's, normed, at each row's end
  };
  // embeds: [N, T, width], T ≤ positions, without positions; computes where and in what they are.
  // `ends`: each row's column of the token that stands for the text. `layer` < 0 counts from the
  // end: −1 is the last; 0, or one that does not exist, means the last after the final norm. Other
  // layers' states go through that norm if `norm_hidden`.
  Output Forward(const at::Tensor& embeds, std::span<const int64_t> ends, int layer,
                 bool norm_hidden) const;

  // [N, width] -> [N, projection].
  at::Tensor Project(const at::Tensor& pooled) const { return projection_.Forward(pooled); }

  const ClipTextConfig& config() const { return config_; }

 private:
  ClipTextConfig config_;
  Embedding tokens_, positions_;
  std::vector<ClipTextLayer> layers_;
  LayerNorm final_norm_;
  Linear projection_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_CLIP_TEXT_H_
