#include "lib/nn/upsample.h"

#include <ATen/ATen.h>

#include "lib/base/parallel.h"
#include "lib/distorch/stored_weights.h"

namespace distorch::nn {
namespace {

// Of smaller maps, adding up the weights costs more than it saves; with bfloat16, whose products
// are an order of magnitude faster and whose sums are not, sooner so.
int64_t MinPixels(at::ScalarType type) { return type == at::kBFloat16 ? 4096 : 256; }

// Along one dimension, at the first place of a pixel: the weight of the pixel before, and those of
// the pixel itself; at the second: those of the pixel, and the weight of the pixel after.
void AddUp(const float* w, int64_t stride, float sums[4]) {
  sums[0] = w[0];
  sums[1] = w[stride] + w[2 * stride];
  sums[2] = w[0] + w[stride];
  sums[3] = w[2 * stride];
}

// [out, in, 3, 3] -> [4 (places, by rows), out, in, 2, 2].
at::Tensor PlaceWeights(const at::Tensor& weight) {
  const at::Tensor from = weight.to(at::kFloat).contiguous();
  const int64_t kernels = from.size(0) * from.size(1);
  at::Tensor to = at::empty({4, from.size(0), from.size(1), 2, 2}, from.options());
  const auto* source = from.const_data_ptr<float>();
  auto* result = to.mutable_data_ptr<float>();
  ParallelFor(0, kernels, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float rows[3][4], sums[4][4];
      for (int64_t y = 0; y < 3; ++y) AddUp(source + 9 * i + 3 * y, 1, rows[y]);
      for (int64_t x = 0; x < 4; ++x) {
        float column[4];
        AddUp(&rows[0][x], 4, column);
        for (int64_t y = 0; y < 4; ++y) sums[y][x] = column[y];
      }
      for (int64_t place = 0; place < 4; ++place) {
        const int64_t y = place / 2 * 2, x = place % 2 * 2;
        float* kernel = result + (place * kernels + i) * 4;
        kernel[0] = sums[y][x];
        kernel[1] = sums[y][x + 1];
        kernel[2] = sums[y + 1][x];
        kernel[3] = sums[y + 1][x + 1];
      }
    }
  });
  return to.to(weight.scalar_type());
}

}  // namespace

at::Tensor UpsampledConv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t out = weight.size(0), height = x.size(2), width = x.size(3);
  const at::Tensor weights = PlaceWeights(weight);
  at::Tensor result =
      at::empty({x.size(0), out, 2 * height, 2 * width}, x.options(), x.suggest_memory_format());
  for (int64_t place = 0; place < 4; ++place) {
    const int64_t row = place / 2, column = place % 2;
    // With padding 1, the 2 × 2 windows begin at -1 … height - 1: one more than there are pixels.
    const at::Tensor all = at::conv2d(x, weights[place], bias, 1, 1);
    result.slice(2, row, {}, 2)
        .slice(3, column, {}, 2)
        .copy_(all.narrow(2, row, height).narrow(3, column, width));
  }
  return result;
}

UpsampleConv2d::UpsampleConv2d(const Scope& scope, int64_t in, int64_t out, bool bias)
    : conv_(scope, in, out, {.bias = bias}) {}

at::Tensor UpsampleConv2d::Forward(const at::Tensor& x, at::OptionalIntArrayRef size) const {
  const std::vector<int64_t> twice = {2 * x.size(2), 2 * x.size(3)};
  const at::IntArrayRef to = size ? *size : at::IntArrayRef(twice);
  if (IsHostMemory(x.device()) && to == at::IntArrayRef(twice) &&
      x.size(2) * x.size(3) >= MinPixels(x.scalar_type())) {
    const WeightLease w = conv_.slot().Acquire(x);
    return UpsampledConv2d(x, Dense(w.weight()), w.bias());
  }
  return conv_.Forward(at::upsample_nearest2d(x, to));
}

}  // namespace distorch::nn
