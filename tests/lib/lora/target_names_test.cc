#include "lib/lora/target_names.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "tests/lib/lora/lora_fixture.h"

namespace distorch::lora {
namespace {

// What a name stands for: a slot's name, its rows, whether their halves are swapped.
using Meaning = std::tuple<std::string, int64_t, int64_t, bool>;

std::map<std::string, Meaning> MeaningsOf(const SlotComponent& component) {
  std::map<std::string, Meaning> meanings;
  for (const TargetName& name : TargetNames(component.store())) {
    const Rows& rows = name.target.rows;
    meanings[name.name] = {name.target.slot->name(), rows.first, rows.count, rows.swapped_halves};
  }
  return meanings;
}

void Expect(const std::map<std::string, Meaning>& meanings, const std::string& name,
            const Meaning& meaning) {
  SCOPED_TRACE(name);
  ASSERT_TRUE(meanings.contains(name));
  EXPECT_EQ(meanings.at(name), meaning);
}

TEST(TargetNamesTest, UNetUnderEveryTrainersNames) {
  const std::string unet = "diffusion_model.";
  const SlotComponent component({
      {unet + "input_blocks.0.0", {4, 4}},
      {unet + "input_blocks.1.0.in_layers.2", {4, 4}},
      {unet + "input_blocks.1.1.proj_in", {4, 4}},
      {unet + "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0", {4, 4}},
      {unet + "input_blocks.2.0.op", {4, 4}},
      {unet + "input_blocks.3.0.out_layers.3", {4, 4}},
      {unet + "input_blocks.4.0.skip_connection", {4, 4}},
      {unet + "middle_block.0.emb_layers.1", {4, 4}},
      {unet + "middle_block.1.norm", {4, 4}},
      {unet + "middle_block.2.in_layers.0", {4, 4}},
      {unet + "output_blocks.0.0.in_layers.2", {4, 4}},
      {unet + "output_blocks.0.1.conv", {4, 4}},
      {unet + "output_blocks.1.0.in_layers.2", {4, 4}},
      {unet + "output_blocks.1.1.proj_in", {4, 4}},
      {unet + "output_blocks.1.2.conv", {4, 4}},
      {unet + "output_blocks.2.0.in_layers.2", {4, 4}},
      {unet + "output_blocks.3.0.in_layers.2", {4, 4}},
      {unet + "out.2", {4, 4}},
  });
  const auto meanings = MeaningsOf(component);
  const auto expect = [&](const std::string& name, const std::string& native) {
    Expect(meanings, name, {unet + native, 0, 0, false});
  };
  expect("lora_unet_input_blocks_1_1_proj_in", "input_blocks.1.1.proj_in");
  expect("diffusion_model.input_blocks.1.1.proj_in", "input_blocks.1.1.proj_in");
  expect("lora_unet_conv_in", "input_blocks.0.0");
  expect("lora_unet_down_blocks_0_resnets_0_conv1", "input_blocks.1.0.in_layers.2");
  expect("lycoris_down_blocks_0_attentions_0_proj_in", "input_blocks.1.1.proj_in");
  expect("unet.down_blocks.0.attentions.0.proj_in", "input_blocks.1.1.proj_in");
  for (const char* const name :
       {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"}) {
    expect(name, "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0");
  }
  expect("unet.down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op");
  expect("unet.down_blocks.1.resnets.0.conv2", "input_blocks.3.0.out_layers.3");
  expect("unet.down_blocks.1.resnets.1.conv_shortcut", "input_blocks.4.0.skip_connection");
  expect("unet.mid_block.resnets.0.time_emb_proj", "middle_block.0.emb_layers.1");
  expect("unet.mid_block.attentions.0.norm", "middle_block.1.norm");
  expect("unet.mid_block.resnets.1.norm1", "middle_block.2.in_layers.0");
  expect("unet.up_blocks.0.upsamplers.0.conv", "output_blocks.0.1.conv");
  expect("unet.up_blocks.1.resnets.0.conv1", "output_blocks.1.0.in_layers.2");
  expect("unet.up_blocks.1.upsamplers.0.conv", "output_blocks.1.2.conv");
  expect("unet.up_blocks.2.resnets.1.conv1", "output_blocks.3.0.in_layers.2");
  expect("unet.conv_out", "out.2");
  EXPECT_FALSE(meanings.contains("unet.up_blocks.0.attentions.0.conv"));
}

TEST(TargetNamesTest, MMDiTsFusedMatricesInThree) {
  const std::string net = "diffusion_model.";
  const SlotComponent component({
      {net + "joint_blocks.0.x_block.attn.qkv", {12, 4}},
      {net + "joint_blocks.0.context_block.attn.qkv", {12, 4}},
      {net + "joint_blocks.0.context_block.adaLN_modulation.1", {24, 4}},
      {net + "joint_blocks.1.x_block.attn.qkv", {12, 4}},
      {net + "joint_blocks.1.x_block.attn2.qkv", {12, 4}},
      {net + "joint_blocks.1.context_block.adaLN_modulation.1", {8, 4}},
      {net + "final_layer.adaLN_modulation.1", {8, 4}},
  });
  const auto meanings = MeaningsOf(component);
  Expect(meanings, "transformer.transformer_blocks.0.attn.to_k",
         {net + "joint_blocks.0.x_block.attn.qkv", 4, 4, false});
  Expect(meanings, "lora_transformer_transformer_blocks_0_attn_add_v_proj",
         {net + "joint_blocks.0.context_block.attn.qkv", 8, 4, false});
  Expect(meanings, "base_model.model.transformer_blocks.1.attn2.to_q",
         {net + "joint_blocks.1.x_block.attn2.qkv", 0, 4, false});
  Expect(meanings, "transformer.transformer_blocks.0.norm1_context.linear",
         {net + "joint_blocks.0.context_block.adaLN_modulation.1", 0, 0, false});
  Expect(meanings, "transformer.transformer_blocks.1.norm1_context.linear",
         {net + "joint_blocks.1.context_block.adaLN_modulation.1", 0, 0, true});
  Expect(meanings, "transformer.norm_out.linear",
         {net + "final_layer.adaLN_modulation.1", 0, 0, true});
}

TEST(TargetNamesTest, FluxSingleBlocksInFour) {
  const std::string net = "diffusion_model.";
  const SlotComponent component({
      {net + "double_blocks.0.img_attn.qkv", {12, 4}},
      {net + "double_blocks.0.txt_attn.qkv", {12, 4}},
      {net + "double_blocks.0.img_mlp.2", {4, 16}},
      {net + "single_blocks.0.linear1", {28, 4}},
      {net + "single_blocks.0.linear2", {4, 20}},
  });
  const auto meanings = MeaningsOf(component);
  Expect(meanings, "lora_unet_double_blocks_0_img_attn_qkv",
         {net + "double_blocks.0.img_attn.qkv", 0, 0, false});
  Expect(meanings, "transformer.transformer_blocks.0.attn.add_k_proj",
         {net + "double_blocks.0.txt_attn.qkv", 4, 4, false});
  Expect(meanings, "transformer.transformer_blocks.0.ff.net.2",
         {net + "double_blocks.0.img_mlp.2", 0, 0, false});
  Expect(meanings, "transformer.single_transformer_blocks.0.attn.to_v",
         {net + "single_blocks.0.linear1", 8, 4, false});
  Expect(meanings, "transformer.single_transformer_blocks.0.proj_mlp",
         {net + "single_blocks.0.linear1", 12, 16, false});
  Expect(meanings, "diffusion_model.single_blocks.0.linear1_qkv",
         {net + "single_blocks.0.linear1", 0, 12, false});
  Expect(meanings, "transformer.single_transformer_blocks.0.proj_out",
         {net + "single_blocks.0.linear2", 0, 0, false});
}

TEST(TargetNamesTest, TextEncodersByTheirNumbers) {
  const std::string layer = ".transformer.text_model.encoder.layers.0.mlp.fc1";
  const std::string t5 = "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q";
  const auto native = [](const std::string& name) { return Meaning{name, 0, 0, false}; };

  const auto sd1 = MeaningsOf(SlotComponent({{"clip_l" + layer, {4, 4}}}));
  for (const char* const name : {"lora_te_text_model_encoder_layers_0_mlp_fc1",
                                 "lora_te1_text_model_encoder_layers_0_mlp_fc1",
                                 "text_encoder.text_model.encoder.layers.0.mlp.fc1",
                                 "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp."
                                 "fc1"}) {
    Expect(sd1, name, native("clip_l" + layer));
  }
  const auto sd3 = MeaningsOf(
      SlotComponent({{"clip_l" + layer, {4, 4}}, {"clip_g" + layer, {4, 4}}, {t5, {4, 4}}}));
  Expect(sd3, "lora_te1_text_model_encoder_layers_0_mlp_fc1", native("clip_l" + layer));
  Expect(sd3, "lora_te2_text_model_encoder_layers_0_mlp_fc1", native("clip_g" + layer));
  Expect(sd3, "text_encoder_2.text_model.encoder.layers.0.mlp.fc1", native("clip_g" + layer));
  Expect(sd3, "lora_te3_encoder_block_0_layer_0_SelfAttention_q", native(t5));

  const auto flux = MeaningsOf(SlotComponent({{"clip_l" + layer, {4, 4}}, {t5, {4, 4}}}));
  Expect(flux, "lora_te2_encoder_block_0_layer_0_SelfAttention_q", native(t5));
  Expect(flux, "lora_te3_encoder_block_0_layer_0_SelfAttention_q", native(t5));

  const auto refiner = MeaningsOf(SlotComponent({{"clip_g" + layer, {4, 4}}}));
  Expect(refiner, "lora_te_text_model_encoder_layers_0_mlp_fc1", native("clip_g" + layer));
}

}  // namespace
}  // namespace distorch::lora
