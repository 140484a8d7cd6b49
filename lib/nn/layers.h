// Layers that own weights. Each declares its block in a WeightStore when constructed and acquires
// the weights in Forward, on the device and in the type of its input. Construction allocates no
// tensors. Forward is const, thread-safe, and throws as LibTorch does.
#ifndef LIB_NN_LAYERS_H_
#define LIB_NN_LAYERS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/distorch/weight_store.h"

namespace distorch::nn {

// A place in the module tree: the store to declare blocks in, and the name so far.
class Scope {
 public:
  Scope(WeightStore* store, std::string name) : store_(store), name_(std::move(name)) {}
  // "a.b" / "c" -> "a.b.c".
  Scope operator/(std::string_view child) const;
  Scope operator/(int64_t index) const;

  WeightStore& store() const { return *store_; }
  const std::string& name() const { return name_; }

 private:
  WeightStore* store_;
  std::string name_;
};

/// A weight as it is in the file, whatever layout it is stored in.
at::Tensor Dense(const at::Tensor& weight);

/// y = x Wᵀ + b over the last dimension.
class Linear {
 public:
  Linear(const Scope& scope, int64_t in, int64_t out, bool bias = true,
         IfMissing if_missing = IfMissing::kError);
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  const WeightSlot* slot_;
  bool packable_;
};

/// 2-D convolution of [N, in, H, W] with a square kernel.
class Conv2d {
 public:
  struct Options {
    int64_t kernel = 3, stride = 1, padding = 1;
    bool bias = true;
  };
  Conv2d(const Scope& scope, int64_t in, int64_t out, Options options);
  at::Tensor Forward(const at::Tensor& x) const;
  const WeightSlot& slot() const { return *slot_; }

 private:
  const WeightSlot* slot_;
  Options options_;
  bool packable_;
};

/// A feature map's pixels as tokens and back: [N, C, H, W] <-> [N, H · W, C]. The map is channels
/// last.
at::Tensor PixelsToTokens(const at::Tensor& map);
at::Tensor TokensToPixels(const at::Tensor& tokens, int64_t height, int64_t width);

/// Group normalisation of [N, C, H, W] with scale and shift.
class GroupNorm {
 public:
  GroupNorm(const Scope& scope, int64_t channels, double eps, int64_t groups = 32);
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  const WeightSlot* slot_;
  int64_t groups_;
  double eps_;
};

/// Layer normalisation over the last dimension with scale and shift.
class LayerNorm {
 public:
  explicit LayerNorm(const Scope& scope, int64_t width, double eps = 1e-5);
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  const WeightSlot* slot_;
  int64_t width_;
  double eps_;
};

/// Table look-up: int64 ids of any shape -> [..., width] in `dtype` on the ids' device.
class Embedding {
 public:
  Embedding(const Scope& scope, int64_t count, int64_t width);
  at::Tensor Forward(const at::Tensor& ids, at::ScalarType dtype) const;
  int64_t count() const { return count_; }

 private:
  const WeightSlot* slot_;
  int64_t count_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_LAYERS_H_
