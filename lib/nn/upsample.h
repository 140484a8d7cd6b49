// Enlarging maps: nearest neighbours, then a convolution.
#ifndef LIB_NN_UPSAMPLE_H_
#define LIB_NN_UPSAMPLE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "lib/nn/layers.h"

namespace distorch::nn {

/// at::conv2d of `x` ([N, in, H, W]), each pixel of it repeated 2 × 2, with `weight` [out, in, 3,
/// 3] and padding 1: [N, out, 2H, 2W]. The enlarged map is never made. Of a 3 × 3 window there, two
/// rows and two columns show the same pixels, so that their weights can be added up beforehand:
/// what is left is a 2 × 2 convolution for each of the four places that a pixel becomes, with 4/9
/// of the multiplications. In host memory only. `bias` may be undefined.
at::Tensor UpsampledConv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// Nearest neighbours, then a 3 × 3 convolution.
class UpsampleConv2d {
 public:
  UpsampleConv2d(const Scope& scope, int64_t in, int64_t out, bool bias = true);

  // `size`, [height, width], of the result; by default twice x's.
  at::Tensor Forward(const at::Tensor& x, at::OptionalIntArrayRef size = {}) const;

 private:
  Conv2d conv_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_UPSAMPLE_H_
