#include "lib/models/key_map.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace distorch::models {
namespace {

constexpr KeyRule kRules[] = {
    {"text.model.", "clip_g.", ConvertOpenClip},
    kDiffusionModelKeys,
    kBareDiffusionModelKeys,
};

TensorIndex Index(const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors) {
  std::vector<TensorInfo> infos;
  for (const auto& [name, shape] : tensors) infos.push_back({name, DType::kF16, shape, 0, 0});
  return TensorIndex(std::move(infos), {});
}

TEST(KeyMapTest, TheFirstRuleThatMatchesWins) {
  const TensorIndex index = Index({{"model.diffusion_model.out.0.bias", {4}}, {"out.2.bias", {4}}});
  const NamedTensors named = MapKeys(index, kRules);
  EXPECT_EQ(named.size(), 2u);
  EXPECT_TRUE(named.contains("diffusion_model.out.0.bias"));
  EXPECT_TRUE(named.contains("diffusion_model.out.2.bias"));
}

TEST(KeyMapTest, OpenClipsNamesBecomeHuggingFaces) {
  const std::vector<std::pair<std::string, std::string>> renamed = {
      {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
      {"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
      {"ln_final.bias", "text_model.final_layer_norm.bias"},
      {"transformer.resblocks.11.ln_1.weight", "text_model.encoder.layers.11.layer_norm1.weight"},
      {"transformer.resblocks.0.ln_2.bias", "text_model.encoder.layers.0.layer_norm2.bias"},
      {"transformer.resblocks.0.mlp.c_fc.weight", "text_model.encoder.layers.0.mlp.fc1.weight"},
      {"transformer.resblocks.0.mlp.c_proj.bias", "text_model.encoder.layers.0.mlp.fc2.bias"},
      {"transformer.resblocks.0.attn.out_proj.weight",
       "text_model.encoder.layers.0.self_attn.out_proj.weight"},
      {"text_projection.weight", "text_projection.weight"},
      {"transformer.text_model.final_layer_norm.bias", "text_model.final_layer_norm.bias"},
  };
  for (const auto& [from, to] : renamed) {
    const TensorIndex index = Index({{"text.model." + from, {6, 4}}});
    const NamedTensors named = MapKeys(index, kRules);
    ASSERT_EQ(named.size(), 1u) << from;
    EXPECT_EQ(named.begin()->first, "clip_g.transformer." + to);
    EXPECT_FALSE(named.begin()->second.transposed);
  }
}

TEST(KeyMapTest, TheJointProjectionIsCutInThree) {
  const TensorIndex index =
      Index({{"text.model.transformer.resblocks.2.attn.in_proj_weight", {12, 4}},
             {"text.model.transformer.resblocks.2.attn.in_proj_bias", {12}}});
  const NamedTensors named = MapKeys(index, kRules);
  EXPECT_EQ(named.size(), 6u);
  const std::string layer = "clip_g.transformer.text_model.encoder.layers.2.self_attn.";
  int64_t first_row = 0;
  for (const char* part : {"q_proj", "k_proj", "v_proj"}) {
    const NamedTensor& weight = named.at(layer + part + ".weight");
    EXPECT_EQ(weight.shape, (std::vector<int64_t>{4, 4}));
    ASSERT_EQ(weight.pieces.size(), 1u);
    EXPECT_EQ(weight.pieces[0].first_row, first_row);
    EXPECT_EQ(weight.pieces[0].rows, 4);
    EXPECT_EQ(named.at(layer + part + ".bias").shape, (std::vector<int64_t>{4}));
    first_row += 4;
  }
}

TEST(KeyMapTest, TheTextProjectionIsTransposed) {
  const TensorIndex index = Index({{"text.model.text_projection", {6, 4}}});
  const NamedTensors named = MapKeys(index, kRules);
  const NamedTensor& projection = named.at("clip_g.transformer.text_projection.weight");
  EXPECT_EQ(projection.shape, (std::vector<int64_t>{4, 6}));
  EXPECT_TRUE(projection.transposed);
}

TEST(KeyMapTest, ATextProjectionOfAnotherRankIsLeftToBeRefused) {
  const TensorIndex index = Index({{"text.model.text_projection", {4}}});
  const NamedTensors named = MapKeys(index, kRules);
  EXPECT_EQ(named.at("clip_g.transformer.text_projection.weight").shape, (std::vector<int64_t>{4}));
}

TEST(KeyMapTest, WhatIsMalformedIsLeftOut) {
  const TensorIndex index =
      Index({{"text.model.transformer.resblocks.2.attn.in_proj_weight", {13, 4}},
             {"text.model.transformer.resblocks.3.attn.in_proj_weight", {}},
             {"text.model.transformer.resblocks.4.attn.in_proj_weight", {0, 4}},
             {"text.model.transformer.resblocks.5", {4}},
             {"text.model.transformer.resblocks.", {4}},
             {"text.model.transformer.resblocks.6.ln_1", {4}},
             {"text.model.logit_scale", {}},
             {"text.model.", {4}}});
  EXPECT_TRUE(MapKeys(index, kRules).empty());
}

}  // namespace
}  // namespace distorch::models
