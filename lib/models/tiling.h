// A picture computed tile by tile, so that memory is bounded by the tile: overlapping tiles,
// blended where they overlap.
#ifndef LIB_MODELS_TILING_H_
#define LIB_MODELS_TILING_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"

namespace distorch::models {

// Sizes in cells; a cell is what one step of the coarser of the two sides covers (a latent pixel).
struct TileGrid {
  int64_t tile = 64;                      // side of a square tile
  int64_t overlap = 16;                   // of neighbours; at most tile / 4
  int64_t in_pixels = 1, out_pixels = 1;  // a cell's side in the input and in the output
};

// [1, C, H, W] float32 on the CPU, H and W multiples of in_pixels; to the same of out_pixels.
using TileStep = absl::FunctionRef<at::Tensor(const at::Tensor& tile)>;

// `step` of `input` by tiles: the mean of three tilings, with square, wide and tall tiles of equal
// area, so that no seam is everywhere at one place. Tiles fade in over their overlap. An input that
// is no larger than a tile is computed whole. `cancel` is checked before every tile. Throws what
// `step` throws.
absl::StatusOr<at::Tensor> ByTiles(const at::Tensor& input, const TileGrid& grid,
                                   const CancelToken& cancel, TileStep step);

}  // namespace distorch::models

#endif  // LIB_MODELS_TILING_H_
