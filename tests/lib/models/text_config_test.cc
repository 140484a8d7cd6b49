// Text models' configurations from shapes, of sound files and damaged ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/models/clip_config.h"
#include "lib/models/t5_config.h"

namespace distorch::models {
namespace {

using ::testing::HasSubstr;
using Shapes = std::map<std::string, std::vector<int64_t>>;

NamedTensors Named(const Shapes& shapes) {
  NamedTensors tensors;
  for (const auto& [name, shape] : shapes) tensors["t." + name].shape = shape;
  return tensors;
}

Shapes T5Shapes() {
  return {{"shared.weight", {32128, 64}},
          {"encoder.block.0.layer.0.SelfAttention.q.weight", {48, 64}},
          {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", {32, 3}},
          {"encoder.block.0.layer.1.DenseReluDense.wi_0.weight", {128, 64}},
          {"encoder.block.1.layer.1.DenseReluDense.wi_0.weight", {128, 64}}};
}

Shapes ClipShapes() {
  return {{"text_model.embeddings.token_embedding.weight", {49408, 128}},
          {"text_model.embeddings.position_embedding.weight", {77, 128}},
          {"text_model.encoder.layers.0.layer_norm1.weight", {128}},
          {"text_model.encoder.layers.0.mlp.fc1.weight", {256, 128}},
          {"text_model.encoder.layers.1.layer_norm1.weight", {128}}};
}

TEST(T5ConfigTest, SizesComeFromShapes) {
  const auto config = ReadT5Config(Named(T5Shapes()), "t.");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vocabulary, 32128);
  EXPECT_EQ(config->width, 64);
  EXPECT_EQ(config->layers, 2);
  EXPECT_EQ(config->heads, 3);
  EXPECT_EQ(config->head_channels, 16);
  EXPECT_EQ(config->feed_forward, 128);
}

TEST(T5ConfigTest, DamagedFilesAreRefusedByName) {
  const auto problem = [](const std::string& name, std::vector<int64_t> shape) {
    Shapes shapes = T5Shapes();
    if (shape.empty()) {
      shapes.erase(name);
    } else {
      shapes[name] = std::move(shape);
    }
    return std::string(ReadT5Config(Named(shapes), "t.").status().message());
  };
  const std::string attention = "encoder.block.0.layer.0.SelfAttention.";
  EXPECT_THAT(problem("shared.weight", {}), HasSubstr("t.shared.weight is missing"));
  EXPECT_THAT(problem("shared.weight", {64}), HasSubstr("t.shared.weight has shape [64]"));
  EXPECT_THAT(problem("shared.weight", {100, 64}), HasSubstr("100 tokens"));
  EXPECT_THAT(problem(attention + "relative_attention_bias.weight", {}), HasSubstr("is missing"));
  EXPECT_THAT(problem(attention + "relative_attention_bias.weight", {32, 5}),
              HasSubstr("not a multiple of 5"));
  EXPECT_THAT(problem("encoder.block.3.layer_norm.weight", {64}), HasSubstr("encoder.block.3"));
}

TEST(ClipConfigTest, SizesComeFromShapes) {
  const auto config =
      ReadClipTextConfig(Named(ClipShapes()), "t.", nn::ClipTextConfig::Activation::kGelu);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->width, 128);
  EXPECT_EQ(config->layers, 2);
  EXPECT_EQ(config->heads, 2);
  EXPECT_EQ(config->feed_forward, 256);
  EXPECT_EQ(config->projection, 128);
}

// Of SD2's text model, diffusers' folders have what is looked at: 23 layers of 24.
TEST(ClipConfigTest, VitHMayLackItsLastLayer) {
  const auto absent = [](int64_t width, int layers) {
    Shapes shapes = {{"text_model.embeddings.token_embedding.weight", {49408, width}},
                     {"text_model.embeddings.position_embedding.weight", {77, width}},
                     {"text_model.encoder.layers.0.mlp.fc1.weight", {4 * width, width}}};
    for (int i = 0; i < layers; ++i)
      shapes[absl::StrCat("text_model.encoder.layers.", i, ".layer_norm1.weight")] = {width};
    const auto config =
        ReadClipTextConfig(Named(shapes), "t.", nn::ClipTextConfig::Activation::kGelu);
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? config->absent_layers : -1;
  };
  EXPECT_EQ(absent(1024, 23), 1);
  EXPECT_EQ(absent(1024, 24), 0);
  EXPECT_EQ(absent(1280, 23), 0);
}

TEST(ClipConfigTest, DamagedFilesAreRefusedByName) {
  const auto problem = [](const std::string& name, std::vector<int64_t> shape) {
    Shapes shapes = ClipShapes();
    shapes[name] = std::move(shape);
    return std::string(
        ReadClipTextConfig(Named(shapes), "t.", nn::ClipTextConfig::Activation::kGelu)
            .status()
            .message());
  };
  const std::string tokens = "text_model.embeddings.token_embedding.weight";
  EXPECT_THAT(problem(tokens, {49407, 128}), HasSubstr("49407 tokens"));
  EXPECT_THAT(problem(tokens, {49408, 100}), HasSubstr("not a multiple of 64"));
  EXPECT_THAT(problem("text_model.embeddings.position_embedding.weight", {78, 128}),
              HasSubstr("78 positions"));
  EXPECT_THAT(problem("text_model.encoder.layers.7.layer_norm1.weight", {128}),
              HasSubstr("layers.7"));
}

}  // namespace
}  // namespace distorch::models
