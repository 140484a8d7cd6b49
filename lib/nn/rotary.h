// Rotary position embeddings: "RoFormer: Enhanced Transformer with Rotary Position Embedding" (Su
// et al., 2021), over several axes.
#ifndef LIB_NN_ROTARY_H_
#define LIB_NN_ROTARY_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace distorch::nn {

// Cosines and sines of the angles that pairs of channels are turned by: float32 [1, T, 1, d / 2].
struct RotaryTable {
  at::Tensor cos, sin;
};

// Positions of `text_tokens` tokens at the origin followed by a grid of rows × columns, row by row,
// at (0, row, column). `axes`: channels a head spends on each of the three, even; base 10,000.
RotaryTable MakeRotaryTable(int64_t text_tokens, int64_t rows, int64_t columns,
                            std::span<const int64_t, 3> axes, const at::Device& device);

// Turns the pairs of neighbouring channels of x [N, T, heads, d]; computed in float32, returned in
// x's type.
at::Tensor Rotate(const at::Tensor& x, const RotaryTable& table);

}  // namespace distorch::nn

#endif  // LIB_NN_ROTARY_H_
