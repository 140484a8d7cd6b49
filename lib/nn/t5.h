// T5's encoder, version 1.1: "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
// Transformer" (Raffel et al., 2020), with the gated GELU of "GLU Variants Improve Transformer"
// (Shazeer, 2020).
#ifndef LIB_NN_T5_H_
#define LIB_NN_T5_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "lib/nn/layers.h"
#include "lib/nn/transformer_layers.h"

namespace distorch::nn {

struct T5Config {
  int64_t vocabulary = 32128;
  int64_t width = 4096;
  int64_t layers = 24;
  int64_t heads = 64;
  int64_t head_channels = 64;
  int64_t feed_forward = 10240;
};

class T5Block;

// The residual stream and the norms are float32, whatever the matrices compute in: T5's activations
// leave the range of float16 and lose much in bfloat16.
class T5Model {
 public:
  T5Model(const Scope& scope, const T5Config& config);
  ~T5Model();

  // The embeddings of ids [N, T] (int64, on the CPU, 0 ≤ id < vocabulary): [N, T, width] in float32
  // on `device`, the caller's to change before Forward.
  at::Tensor Embed(const at::Tensor& ids, const at::Device& device) const;

  // embeds: [N, T, width] in float32. Returns the states after a layer and the final norm, float32
  // of the same shape. `layer` as ClipTextModel::Forward's. Matrices are multiplied in `dtype`, or
  // in float32 where that is float16, which the gated layers' products overflow.
  at::Tensor Forward(const at::Tensor& embeds, at::ScalarType dtype, int layer) const;

  const T5Config& config() const { return config_; }

 private:
  T5Config config_;
  std::vector<T5Block> blocks_;
  RmsNorm final_norm_;
  Embedding shared_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_T5_H_
