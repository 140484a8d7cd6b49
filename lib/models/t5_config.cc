#include "lib/models/t5_config.h"

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/models/shape_reader.h"

namespace distorch::models {
namespace {

// The tokenizer's ids must be valid rows; published files have some rows more.
constexpr int64_t kTokens = 32100;

}  // namespace

absl::StatusOr<nn::T5Config> ReadT5Config(const NamedTensors& tensors, const std::string& prefix) {
  ShapeReader shapes(tensors, prefix);
  const std::string attention = "encoder.block.0.layer.0.SelfAttention.";
  nn::T5Config config;
  config.vocabulary = shapes.Size("shared.weight", 2, 0);
  config.width = shapes.Size("shared.weight", 2, 1);
  config.layers = shapes.CountBlocks("encoder.block.");
  config.heads = shapes.Size(attention + "relative_attention_bias.weight", 2, 1);
  const int64_t inner = shapes.Size(attention + "q.weight", 2, 0);
  shapes.RequireDivisible(attention + "q", inner, config.heads);
  config.head_channels = inner / config.heads;
  config.feed_forward = shapes.Size("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 2, 0);
  shapes.Require(
      config.vocabulary >= kTokens,
      absl::StrCat("shared has ", config.vocabulary, " tokens, expected at least ", kTokens));
  RETURN_IF_ERROR(shapes.status());
  return config;
}

}  // namespace distorch::models
