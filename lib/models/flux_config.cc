#include "lib/models/flux_config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/models/latent_format.h"
#include "lib/models/shape_reader.h"

namespace distorch::models {
namespace {

constexpr int64_t kHeadChannels = 128;
constexpr int64_t kPatchArea = nn::kPatch * nn::kPatch;
// A file's header bounds the blocks that exist; this bounds what is built from it.
constexpr int64_t kMaxBlocks = 256;

// The size of dimension `dim` of a matrix, as channels of a latent.
int64_t LatentChannels(ShapeReader& shapes, const std::string& name, size_t dim) {
  const int64_t size = shapes.Size(name, 2, dim);
  shapes.RequireDivisible(name, size, kPatchArea);
  return size / kPatchArea;
}

int64_t BlockCount(ShapeReader& shapes, const std::string& before) {
  const int64_t count = shapes.CountBlocks(before);
  shapes.Require(count >= 1 && count <= kMaxBlocks,
                 absl::StrCat(before, "*: ", count, " blocks, expected 1 to ", kMaxBlocks));
  return count;
}

}  // namespace

absl::StatusOr<nn::FluxConfig> ReadFluxConfig(const NamedTensors& tensors) {
  ShapeReader shapes(tensors, "diffusion_model.");
  nn::FluxConfig config;
  config.width = shapes.Size("img_in.weight", 2, 0);
  shapes.RequireDivisible("img_in.weight", config.width, kHeadChannels);
  config.in_channels = LatentChannels(shapes, "img_in.weight", 1);
  config.out_channels = LatentChannels(shapes, "final_layer.linear.weight", 0);
  const int64_t latent_channels = FluxLatentFormat().channels;
  shapes.Require(config.out_channels == latent_channels,
                 absl::StrCat("final_layer.linear.weight yields ", config.out_channels,
                              " channels, expected ", latent_channels));
  config.context_width = shapes.Size("txt_in.weight", 2, 1);
  config.pooled_width = shapes.Size("vector_in.in_layer.weight", 2, 1);
  config.guidance = shapes.Has("guidance_in.in_layer.weight");
  config.double_blocks = BlockCount(shapes, "double_blocks.");
  config.single_blocks = BlockCount(shapes, "single_blocks.");
  RETURN_IF_ERROR(shapes.status());
  return config;
}

}  // namespace distorch::models
