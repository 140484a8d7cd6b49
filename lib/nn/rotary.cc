#include "lib/nn/rotary.h"

#include <ATen/ATen.h>

#include <array>

namespace distorch::nn {
namespace {

constexpr double kBase = 10000;

// Angles of one axis, [T, channels / 2] float64: float32 loses digits at large positions.
at::Tensor Angles(const at::Tensor& positions, int64_t channels) {
  const at::Tensor exponents = at::arange(0, channels, 2, at::kDouble) / channels;
  return at::outer(positions, at::pow(kBase, exponents).reciprocal_());
}

}  // namespace

RotaryTable MakeRotaryTable(int64_t text_tokens, int64_t rows, int64_t columns,
                            std::span<const int64_t, 3> axes, const at::Device& device) {
  const at::Tensor text = at::zeros({text_tokens}, at::kDouble);
  const at::Tensor row = at::arange(rows, at::kDouble).repeat_interleave(columns);
  const at::Tensor column = at::arange(columns, at::kDouble).repeat({rows});
  const at::Tensor angles =
      at::cat({Angles(at::cat({text, at::zeros_like(row)}), axes[0]),
               Angles(at::cat({text, row}), axes[1]), Angles(at::cat({text, column}), axes[2])},
              1)
          .unsqueeze(1)
          .unsqueeze(0);
  return {at::cos(angles).to(at::kFloat).to(device), at::sin(angles).to(at::kFloat).to(device)};
}

at::Tensor Rotate(const at::Tensor& x, const RotaryTable& table) {
  const at::Tensor pairs = x.to(at::kFloat).unflatten(-1, {-1, 2});
  const at::Tensor a = pairs.select(-1, 0), b = pairs.select(-1, 1);
  return at::stack({(a * table.cos).sub_(b * table.sin), (a * table.sin).add_(b * table.cos)}, -1)
      .flatten(-2)
      .to(x.scalar_type());
}

}  // namespace distorch::nn
