#include "lib/models/clip_config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/models/shape_reader.h"

namespace distorch::models {
namespace {

constexpr int64_t kClipHeadChannels = 64;
// CLIP's vocabulary and context length: the tokenizer's ids must be valid rows.
constexpr int64_t kClipVocabulary = 49408;
constexpr int64_t kClipPositions = 77;
// OpenCLIP's ViT-H, of which SD2 looks at the last layer but one: diffusers' folders and pruned
// files come without the last.
constexpr int64_t kVitHWidth = 1024, kVitHLayers = 24;

}  // namespace

absl::StatusOr<nn::ClipTextConfig> ReadClipTextConfig(const NamedTensors& tensors,
                                                      const std::string& prefix,
                                                      nn::ClipTextConfig::Activation activation) {
  ShapeReader shapes(tensors, prefix);
  nn::ClipTextConfig config;
  config.activation = activation;
  config.vocabulary = shapes.Size("text_model.embeddings.token_embedding.weight", 2, 0);
  config.width = shapes.Size("text_model.embeddings.token_embedding.weight", 2, 1);
  config.positions = shapes.Size("text_model.embeddings.position_embedding.weight", 2, 0);
  config.layers = shapes.CountBlocks("text_model.encoder.layers.");
  if (config.width == kVitHWidth && config.layers == kVitHLayers - 1) config.absent_layers = 1;
  config.feed_forward = shapes.Size("text_model.encoder.layers.0.mlp.fc1.weight", 2, 0);
  config.heads = config.width / kClipHeadChannels;
  config.projection = shapes.Has("text_projection.weight")
                          ? shapes.Size("text_projection.weight", 2, 0)
                          : config.width;
  shapes.RequireDivisible("text_model", config.width, kClipHeadChannels);
  shapes.Require(
      config.vocabulary == kClipVocabulary,
      absl::StrCat("text_model has ", config.vocabulary, " tokens, expected ", kClipVocabulary));
  shapes.Require(
      config.positions == kClipPositions,
      absl::StrCat("text_model has ", config.positions, " positions, expected ", kClipPositions));
  RETURN_IF_ERROR(shapes.status());
  return config;
}

}  // namespace distorch::models
