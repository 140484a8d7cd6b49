// Layers of diffusion transformers ("Scalable Diffusion Models with Transformers", Peebles & Xie,
// 2023), beside those of layers.h and under the same rules.
#ifndef LIB_NN_TRANSFORMER_LAYERS_H_
#define LIB_NN_TRANSFORMER_LAYERS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "lib/nn/layers.h"

namespace distorch::nn {

// Pixels of the latent that a token covers, per side.
constexpr int64_t kPatch = 2;

/// Root-mean-square normalisation over the last dimension with a scale ("Root Mean Square Layer
/// Normalization", Zhang & Sennrich, 2019).
class RmsNorm {
 public:
  RmsNorm(const Scope& scope, int64_t width, double eps, std::string_view weight_name = "weight");
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  const WeightSlot* slot_;
  double eps_;
};

/// Layer normalisation over the last dimension without parameters, eps 1e-6. Declares an empty
/// block, since the reference counts the module.
class PlainLayerNorm {
 public:
  explicit PlainLayerNorm(const Scope& scope);
  at::Tensor Forward(const at::Tensor& x) const;
};

/// Linear, activation, Linear.
class Mlp {
 public:
  enum class Activation { kSilu, kGeluTanh };
  Mlp(const Scope& first, const Scope& second, int64_t in, int64_t hidden, int64_t out,
      Activation activation);
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  Linear first_, second_;
  Activation activation_;
};

/// Adaptive normalisation's parameters: `count` vectors [N, 1, width] from the SiLU of the
/// conditioning vector, [N, width].
class Modulation {
 public:
  Modulation(const Scope& scope, int64_t width, int64_t count);
  std::vector<at::Tensor> Forward(const at::Tensor& activated) const;

 private:
  Linear linear_;
  int64_t count_;
};

/// shift + x · (1 + scale).
at::Tensor Modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale);

/// The end of a diffusion transformer: tokens [N, T, width] -> [N, T, out].
class FinalLayer {
 public:
  FinalLayer(const Scope& scope, int64_t width, int64_t out);
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& activated) const;

 private:
  PlainLayerNorm norm_;
  Linear linear_;
  Modulation modulation_;
};

/// [N, C, H, W] continued around its edges on the right and the bottom to multiples of kPatch.
at::Tensor PadToPatches(const at::Tensor& x);

/// How many patches cover `size` pixels.
constexpr int64_t PatchCount(int64_t size) { return (size + kPatch - 1) / kPatch; }

}  // namespace distorch::nn

#endif  // LIB_NN_TRANSFORMER_LAYERS_H_
