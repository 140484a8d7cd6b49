#include "lib/models/tiling.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace distorch::models {
namespace {

constexpr double kTolerance = 1e-5;

at::Tensor Ramp(int64_t channels, int64_t height, int64_t width) {
  return at::arange(channels * height * width, at::kFloat)
      .view({1, channels, height, width})
      .div_(static_cast<double>(channels * height * width));
}

double LargestDifference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return a.sizes() == b.sizes() ? (a - b).abs().max().item<double>() : 1e9;
}

at::Tensor Tiled(const at::Tensor& input, const TileGrid& grid, TileStep step) {
  const auto result = ByTiles(input, grid, CancelToken(), step);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.value_or(at::zeros({1}));
}

// A step that looks at one pixel at a time cannot tell tiles from the whole.
TEST(ByTilesTest, BlendsToTheWholeWhateverTheShape) {
  for (const auto& [height, width] : {std::pair{1, 40}, {9, 8}, {17, 23}, {40, 1}, {33, 64}}) {
    for (const auto& [tile, overlap] : {std::pair{8, 2}, {8, 0}, {12, 3}, {16, 4}}) {
      const at::Tensor input = Ramp(3, height, width);
      const at::Tensor output = Tiled(input, {.tile = tile, .overlap = overlap},
                                      [](const at::Tensor& x) { return x * 2 + 1; });
      EXPECT_LT(LargestDifference(output, input * 2 + 1), kTolerance)
          << height << " x " << width << " by " << tile << ", " << overlap;
    }
  }
}

TEST(ByTilesTest, SidesMayDiffer) {
  const at::Tensor input = Ramp(2, 21, 30);
  const at::Tensor large = at::upsample_nearest2d(input, {21 * 8, 30 * 8});
  EXPECT_LT(
      LargestDifference(Tiled(input, {.tile = 8, .overlap = 2, .out_pixels = 8},
                              [](const at::Tensor& x) {
                                return at::upsample_nearest2d(x, {x.size(2) * 8, x.size(3) * 8});
                              }),
                        large),
      kTolerance);
  EXPECT_LT(LargestDifference(Tiled(large, {.tile = 8, .overlap = 2, .in_pixels = 8},
                                    [](const at::Tensor& x) {
                                      return at::avg_pool2d(x, {8, 8});
                                    }),
                              input),
            kTolerance);
}

TEST(ByTilesTest, NoTileIsLargerThanItsArea) {
  int64_t tiles = 0;
  Tiled(Ramp(1, 50, 50), {.tile = 8, .overlap = 2}, [&](const at::Tensor& x) {
    ++tiles;
    EXPECT_LE(x.size(2) * x.size(3), 8 * 8);
    EXPECT_LE(std::max(x.size(2), x.size(3)), 16);
    return x;
  });
  EXPECT_GT(tiles, 100);
}

TEST(ByTilesTest, WhatFitsIsComputedWhole) {
  const at::Tensor input = Ramp(1, 4, 4);
  const at::Tensor output = Tiled(input, {.tile = 8, .overlap = 2}, [](const at::Tensor& x) {
    EXPECT_EQ(x.size(2), 4);
    return x;
  });
  EXPECT_LT(LargestDifference(output, input), kTolerance);
}

TEST(ByTilesTest, StopsBetweenTilesWhenCancelled) {
  CancelToken cancel;
  int tiles = 0;
  const auto result =
      ByTiles(Ramp(1, 50, 50), {.tile = 8, .overlap = 2}, cancel, [&](const at::Tensor& x) {
        if (++tiles == 3) cancel.Cancel(absl::CancelledError("by the test"));
        return x;
      });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(tiles, 3);
}

}  // namespace
}  // namespace distorch::models
