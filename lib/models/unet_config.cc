#include "lib/models/unet_config.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/models/shape_reader.h"

namespace distorch::models {
namespace {

using nn::UNetBlockConfig;
using nn::UNetConfig;

constexpr int64_t kNormGroups = 32;

int64_t TransformerDepth(const ShapeReader& shapes, const std::string& block) {
  return shapes.Count(absl::StrCat(block, ".transformer_blocks."), ".norm1.weight");
}

UNetBlockConfig ReadResNet(ShapeReader& shapes, const std::string& block) {
  UNetBlockConfig config;
  config.out_channels = shapes.Size(absl::StrCat(block, ".0.in_layers.2.weight"), 4, 0);
  config.in_channels = shapes.Size(absl::StrCat(block, ".0.in_layers.2.weight"), 4, 1);
  config.transformer_depth = TransformerDepth(shapes, absl::StrCat(block, ".1"));
  shapes.RequireDivisible(block, config.in_channels, kNormGroups);
  shapes.RequireDivisible(block, config.out_channels, kNormGroups);
  return config;
}

std::vector<UNetBlockConfig> ReadInputBlocks(ShapeReader& shapes) {
  std::vector<UNetBlockConfig> blocks;
  UNetBlockConfig first;
  first.kind = UNetBlockConfig::Kind::kConvIn;
  first.in_channels = shapes.Size("input_blocks.0.0.weight", 4, 1);
  first.out_channels = shapes.Size("input_blocks.0.0.weight", 4, 0);
  blocks.push_back(first);
  for (int64_t i = 1;; ++i) {
    const std::string name = absl::StrCat("input_blocks.", i);
    if (shapes.Has(absl::StrCat(name, ".0.op.weight"))) {
      UNetBlockConfig down;
      down.kind = UNetBlockConfig::Kind::kDownsample;
      down.in_channels = shapes.Size(absl::StrCat(name, ".0.op.weight"), 4, 1);
      down.out_channels = shapes.Size(absl::StrCat(name, ".0.op.weight"), 4, 0);
      blocks.push_back(down);
    } else if (shapes.Has(absl::StrCat(name, ".0.in_layers.2.weight"))) {
      blocks.push_back(ReadResNet(shapes, name));
    } else {
      return blocks;
    }
  }
}

std::vector<UNetBlockConfig> ReadOutputBlocks(ShapeReader& shapes) {
  std::vector<UNetBlockConfig> blocks;
  const int64_t count = shapes.Count("output_blocks.", ".0.in_layers.2.weight");
  for (int64_t i = 0; i < count; ++i) {
    const std::string name = absl::StrCat("output_blocks.", i);
    UNetBlockConfig block = ReadResNet(shapes, name);
    block.upsample =
        shapes.Has(absl::StrCat(name, block.transformer_depth > 0 ? ".2" : ".1", ".conv.weight"));
    blocks.push_back(block);
  }
  return blocks;
}

// Follows the channels through the network, as Forward will: each block must take what the one
// before it leaves.
void CheckChannels(const UNetConfig& config, ShapeReader& shapes) {
  std::vector<int64_t> skips;
  int64_t channels = config.in_channels, levels = 0;
  for (size_t i = 0; i < config.input_blocks.size(); ++i) {
    const UNetBlockConfig& block = config.input_blocks[i];
    shapes.Require(block.in_channels == channels,
                   absl::StrCat("input_blocks.", i, " takes ", block.in_channels,
                                " channels, but gets ", channels));
    channels = block.out_channels;
    skips.push_back(channels);
    if (block.kind == UNetBlockConfig::Kind::kDownsample) ++levels;
  }
  shapes.Require(channels == config.middle_channels,
                 absl::StrCat("middle_block takes ", config.middle_channels, " channels, but gets ",
                              channels));
  shapes.Require(config.output_blocks.size() == skips.size(),
                 absl::StrCat("output_blocks: ", config.output_blocks.size(), " blocks for ",
                              skips.size(), " inputs"));
  for (size_t i = 0; i < config.output_blocks.size() && !skips.empty(); ++i) {
    const UNetBlockConfig& block = config.output_blocks[i];
    shapes.Require(block.in_channels == channels + skips.back(),
                   absl::StrCat("output_blocks.", i, " takes ", block.in_channels,
                                " channels, but gets ", channels + skips.back()));
    skips.pop_back();
    channels = block.out_channels;
    if (block.upsample) --levels;
  }
  shapes.Require(levels == 0, "has not as many upsamplings as downsamplings");
  shapes.Require(channels == config.model_channels,
                 "output_blocks do not end at the model's width");
}

void CheckHeads(const UNetConfig& config, ShapeReader& shapes) {
  const int64_t unit = config.heads > 0 ? config.heads : config.head_channels;
  auto check = [&](int64_t depth, int64_t channels) {
    if (depth > 0) shapes.RequireDivisible("an attention", channels, unit);
  };
  for (const UNetBlockConfig& block : config.input_blocks)
    check(block.transformer_depth, block.out_channels);
  for (const UNetBlockConfig& block : config.output_blocks)
    check(block.transformer_depth, block.out_channels);
  check(config.middle_transformer_depth, config.middle_channels);
}

// Told by any tensor of a part, so that a part that lacks some is seen as damaged, not as absent.
UNetConfig::Middle ReadMiddle(const ShapeReader& shapes) {
  if (shapes.Has("middle_block.1.proj_in.weight") ||
      shapes.Has("middle_block.2.in_layers.2.weight")) {
    return UNetConfig::Middle::kResNetTransformerResNet;
  }
  if (shapes.Has("middle_block.0.in_layers.2.weight") ||
      shapes.Has("middle_block.0.out_layers.3.weight")) {
    return UNetConfig::Middle::kResNet;
  }
  return UNetConfig::Middle::kNone;
}

// The name of some transformer of the UNet, such as "input_blocks.1.1"; empty when it has none.
std::string AnyTransformer(const UNetConfig& config) {
  for (size_t i = 0; i < config.input_blocks.size(); ++i) {
    if (config.input_blocks[i].transformer_depth > 0) return absl::StrCat("input_blocks.", i, ".1");
  }
  return "";
}

void ReadMiddleSizes(ShapeReader& shapes, UNetConfig* config) {
  config->middle = ReadMiddle(shapes);
  config->middle_channels = config->middle == UNetConfig::Middle::kNone
                                ? config->input_blocks.back().out_channels
                                : shapes.Size("middle_block.0.in_layers.2.weight", 4, 0);
  config->middle_transformer_depth = 0;
  if (config->middle != UNetConfig::Middle::kResNetTransformerResNet) return;
  config->middle_transformer_depth = TransformerDepth(shapes, "middle_block.1");
  shapes.Require(config->middle_transformer_depth > 0,
                 "middle_block.1.transformer_blocks.0.norm1.weight is missing");
}

}  // namespace

absl::StatusOr<nn::UNetConfig> ReadUNetConfig(const NamedTensors& tensors, int64_t heads,
                                              int64_t head_channels) {
  ShapeReader shapes(tensors, "diffusion_model.");
  UNetConfig config;
  config.heads = heads;
  config.head_channels = head_channels;
  config.model_channels = shapes.Size("input_blocks.0.0.weight", 4, 0);
  config.in_channels = shapes.Size("input_blocks.0.0.weight", 4, 1);
  config.out_channels = shapes.Size("out.2.weight", 4, 0);
  config.time_embed_channels = shapes.Size("time_embed.0.weight", 2, 0);
  if (shapes.Has("label_emb.0.0.weight"))
    config.class_channels = shapes.Size("label_emb.0.0.weight", 2, 1);
  config.input_blocks = ReadInputBlocks(shapes);
  config.output_blocks = ReadOutputBlocks(shapes);
  ReadMiddleSizes(shapes, &config);
  if (const std::string attention = AnyTransformer(config); !attention.empty()) {
    config.context_width =
        shapes.Size(absl::StrCat(attention, ".transformer_blocks.0.attn2.to_k.weight"), 2, 1);
    auto proj_in = tensors.find(absl::StrCat("diffusion_model.", attention, ".proj_in.weight"));
    config.linear_projection = proj_in != tensors.end() && proj_in->second.shape.size() == 2;
  } else {
    shapes.Require(false, "has no attention");
  }
  shapes.RequireDivisible("input_blocks.0.0", config.model_channels, kNormGroups);
  CheckChannels(config, shapes);
  CheckHeads(config, shapes);
  RETURN_IF_ERROR(shapes.status());
  return config;
}

}  // namespace distorch::models
