#include "lib/models/mmdit_config.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/models/latent_format.h"
#include "lib/models/shape_reader.h"

namespace distorch::models {
namespace {

constexpr int64_t kHeadChannels = 64;
// The published models have a block for each head.
constexpr int64_t kMaxBlocks = 256;

// The side of the square of patches that the position table covers.
int64_t PositionSide(ShapeReader& shapes) {
  const int64_t patches = shapes.Size("pos_embed", 3, 1);
  const int64_t side = std::llround(std::sqrt(static_cast<double>(patches)));
  shapes.Require(side * side == patches,
                 absl::StrCat("pos_embed covers ", patches, " patches, which are no square"));
  return side;
}

void ReadBlocks(ShapeReader& shapes, nn::MmDitConfig* config) {
  const int64_t expected = config->width / kHeadChannels;
  const int64_t count = shapes.CountBlocks("joint_blocks.");
  shapes.Require(expected <= kMaxBlocks && count == expected,
                 absl::StrCat("joint_blocks: ", count, " blocks, expected ", expected,
                              " (x_embedder.proj.weight's width / ", kHeadChannels, "), at most ",
                              kMaxBlocks));
  if (!shapes.status().ok()) return;
  config->qk_norm = shapes.Has("joint_blocks.0.context_block.attn.ln_q.weight");
  for (int64_t i = 0; i < count; ++i) {
    config->dual_attention.push_back(
        shapes.Has(absl::StrCat("joint_blocks.", i, ".x_block.attn2.qkv.weight")));
  }
}

}  // namespace

absl::StatusOr<nn::MmDitConfig> ReadMmDitConfig(const NamedTensors& tensors) {
  ShapeReader shapes(tensors, "diffusion_model.");
  nn::MmDitConfig config;
  const std::string embedder = "x_embedder.proj.weight", final_layer = "final_layer.linear.weight";
  config.width = shapes.Size(embedder, 4, 0);
  config.in_channels = shapes.Size(embedder, 4, 1);
  shapes.RequireDivisible(embedder, config.width, kHeadChannels);
  for (const size_t dim : {size_t{2}, size_t{3}}) {
    const int64_t patch = shapes.Size(embedder, 4, dim);
    shapes.Require(patch == nn::kPatch,
                   absl::StrCat(embedder, " has patches of ", patch, ", expected ", nn::kPatch));
  }
  const int64_t out = shapes.Size(final_layer, 2, 0);
  shapes.RequireDivisible(final_layer, out, nn::kPatch * nn::kPatch);
  config.out_channels = out / (nn::kPatch * nn::kPatch);
  const int64_t latent_channels = Sd3LatentFormat().channels;
  shapes.Require(
      config.in_channels == latent_channels && config.out_channels == latent_channels,
      absl::StrCat(embedder, " takes ", config.in_channels, " and ", final_layer, " yields ",
                   config.out_channels, " channels, expected ", latent_channels));
  config.context_width = shapes.Size("context_embedder.weight", 2, 1);
  config.pooled_width = shapes.Size("y_embedder.mlp.0.weight", 2, 1);
  config.position_side = PositionSide(shapes);
  shapes.Require(!shapes.Has("context_processor.norm.weight") &&
                     !shapes.Has("context_processor.layers.0.attn.qkv.weight"),
                 "context_processor is not supported");
  ReadBlocks(shapes, &config);
  RETURN_IF_ERROR(shapes.status());
  return config;
}

}  // namespace distorch::models
