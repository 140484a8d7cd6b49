// What an adapter does to one parameter on its way to a layer.
#ifndef LIB_DISTORCH_WEIGHT_PATCH_H_
#define LIB_DISTORCH_WEIGHT_PATCH_H_

#include <ATen/core/Tensor.h>

namespace distorch {

// Immutable and thread-safe.
class WeightPatch {
 public:
  WeightPatch() = default;
  WeightPatch(const WeightPatch&) = delete;
  WeightPatch& operator=(const WeightPatch&) = delete;
  virtual ~WeightPatch() = default;

  // `parameter` is float32, contiguous, on the compute device, and the patch's to change; the
  // result is the same tensor or another of its shape. Throws as LibTorch does.
  virtual at::Tensor Apply(at::Tensor parameter) const = 0;
};

}  // namespace distorch

#endif  // LIB_DISTORCH_WEIGHT_PATCH_H_
