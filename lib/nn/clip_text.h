// CLIP's text transformer: "Learning Transferable Visual Models From Natural Language Supervision"
// (Radford et al., 2021).
#ifndef LIB_NN_CLIP_TEXT_H_
#define LIB_NN_CLIP_TEXT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
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
  int64_t end_token = 49407;
};

class ClipTextLayer;

class ClipTextModel {
 public:
  ClipTextModel(const Scope& scope, const ClipTextConfig& config);
  ~ClipTextModel();

  struct Output {
    at::Tensor
        hidden;  // [N, T, width], after the final norm: of the last layer, or of layer `stop_at`
    at::Tensor pooled;  // [N, projection]: the end token's state of the last layer, projected
  };
  // ids: [N, T] int64 on the CPU, 0 ≤ id < vocabulary, T ≤ positions. Computes on `device` in
  // `dtype`. `stop_at_layer` counts from the end: −1 is the last layer, −2 the one before; one that
  // does not exist means the last.
  Output Forward(const at::Tensor& ids, const at::Device& device, at::ScalarType dtype,
                 int stop_at_layer) const;

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
