#include "lib/models/vae_config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/models/shape_reader.h"

namespace distorch::models {
namespace {

constexpr int64_t kNormGroups = 32;
constexpr int64_t kMaxLevels = 8;

}  // namespace

absl::StatusOr<nn::VaeConfig> ReadVaeConfig(const NamedTensors& tensors, int64_t latent_channels) {
  ShapeReader shapes(tensors, "first_stage_model.");
  nn::VaeConfig config;
  config.latent_channels = shapes.Size("decoder.conv_in.weight", 4, 1);
  shapes.Require(config.latent_channels == latent_channels,
                 absl::StrCat("decoder.conv_in.weight takes ", config.latent_channels,
                              " channels, expected ", latent_channels));
  config.channels = shapes.Size("encoder.conv_in.weight", 4, 0);
  config.level_channels.clear();
  const int64_t levels = shapes.Count("encoder.down.", ".block.0.conv1.weight");
  shapes.Require(levels >= 1 && levels <= kMaxLevels, "encoder: has no or too many levels");
  for (int64_t i = 0; i < levels; ++i) {
    config.level_channels.push_back(
        shapes.Size(absl::StrCat("encoder.down.", i, ".block.0.conv1.weight"), 4, 0));
    shapes.RequireDivisible("encoder", config.level_channels.back(), kNormGroups);
  }
  shapes.RequireDivisible("encoder.conv_in", config.channels, kNormGroups);
  config.blocks_per_level = shapes.Count("encoder.down.0.block.", ".conv1.weight");
  config.decoder_blocks_per_level = shapes.Count("decoder.up.0.block.", ".conv1.weight");
  config.has_quant_conv = shapes.Has("quant_conv.weight");
  RETURN_IF_ERROR(shapes.status());
  return config;
}

}  // namespace distorch::models
