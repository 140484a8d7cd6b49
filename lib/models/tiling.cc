#include "lib/models/tiling.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "lib/base/status_macros.h"

namespace distorch::models {
namespace {

struct Span {
  int64_t begin, length;
};

// Where tiles lie along a side of `size` cells.
std::vector<Span> Spans(int64_t size, int64_t tile, int64_t overlap) {
  if (size <= tile) return {{0, size}};
  std::vector<Span> spans;
  for (int64_t begin = 0; begin < size - overlap; begin += tile - overlap)
    spans.push_back({begin, std::min(tile, size - begin)});
  return spans;
}

// A tile's weights along a side: rising over `feather` pixels from either end.
at::Tensor Fade(int64_t size, int64_t feather) {
  at::Tensor fade = at::ones({size}, at::kFloat);
  if (feather >= size) return fade;
  for (int64_t i = 0; i < feather; ++i) {
    const double weight = static_cast<double>(i + 1) / static_cast<double>(feather);
    fade[i] *= weight;
    fade[size - 1 - i] *= weight;
  }
  return fade;
}

absl::StatusOr<at::Tensor> OneTiling(const at::Tensor& input, const TileGrid& grid, int64_t height,
                                     int64_t width, const CancelToken& cancel, TileStep step) {
  const int64_t rows = input.size(2) / grid.in_pixels, columns = input.size(3) / grid.in_pixels;
  at::Tensor sum, weights;
  for (const Span& y : Spans(rows, height, grid.overlap)) {
    for (const Span& x : Spans(columns, width, grid.overlap)) {
      RETURN_IF_ERROR(cancel.Check());
      const at::Tensor part =
          step(input.narrow(2, y.begin * grid.in_pixels, y.length * grid.in_pixels)
                   .narrow(3, x.begin * grid.in_pixels, x.length * grid.in_pixels)
                   .contiguous());
      if (y.length == rows && x.length == columns) return part;
      if (!sum.defined()) {
        sum = at::zeros({1, part.size(1), rows * grid.out_pixels, columns * grid.out_pixels});
        weights = at::zeros({sum.size(2), sum.size(3)});
      }
      const int64_t feather = grid.overlap * grid.out_pixels;
      const at::Tensor fade =
          Fade(part.size(2), feather).unsqueeze(1) * Fade(part.size(3), feather);
      const auto place = [&](const at::Tensor& whole) {
        return whole.narrow(-2, y.begin * grid.out_pixels, part.size(2))
            .narrow(-1, x.begin * grid.out_pixels, part.size(3));
      };
      place(sum).add_(part * fade);
      place(weights).add_(fade);
    }
  }
  return sum.div_(weights);
}

}  // namespace

absl::StatusOr<at::Tensor> ByTiles(const at::Tensor& input, const TileGrid& grid,
                                   const CancelToken& cancel, TileStep step) {
  ASSIGN_OR_RETURN(at::Tensor sum,
                   OneTiling(input, grid, grid.tile * 2, grid.tile / 2, cancel, step));
  ASSIGN_OR_RETURN(const at::Tensor wide,
                   OneTiling(input, grid, grid.tile / 2, grid.tile * 2, cancel, step));
  sum = sum + wide;
  ASSIGN_OR_RETURN(const at::Tensor square,
                   OneTiling(input, grid, grid.tile, grid.tile, cancel, step));
  return (sum + square).div_(3);
}

}  // namespace distorch::models
