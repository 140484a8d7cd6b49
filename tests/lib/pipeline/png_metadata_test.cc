#include "lib/pipeline/png_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "absl/strings/match.h"
#include "lib/pipeline/png_codec.h"
#include "nlohmann/json.hpp"

namespace distorch {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

GenerationParameters Example() {
  GenerationParameters p;
  p.prompt = "a cat";
  p.negative_prompt = "dog";
  p.ckpt_name = "sd/v1-5.safetensors";
  p.steps = 20;
  p.cfg = 4;
  p.width = p.height = 128;
  p.version = "distorchd 0.1.0";
  return p;
}

// The one node of a class in a graph.
json NodeOf(const json& graph, const std::string& class_type) {
  json found;
  for (const auto& [id, node] : graph.items()) {
    if (node["class_type"] != class_type) continue;
    EXPECT_TRUE(found.is_null()) << "two of " << class_type;
    found = node;
    found["id"] = id;
  }
  EXPECT_FALSE(found.is_null()) << "no " << class_type;
  return found;
}

const json& Source(const json& graph, const json& node, const char* input) {
  return graph[node["inputs"][input][0].get<std::string>()];
}

TEST(WebUiInfotextTest, HasTheWebUisForm) {
  EXPECT_EQ(WebUiInfotext(Example()),
            "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler, Schedule type: Normal, CFG "
            "scale: 4, Seed: 0, Size: 128x128, Model: v1-5, Version: distorchd 0.1.0");
}

TEST(WebUiInfotextTest, FieldsThatAreNotAlwaysThere) {
  GenerationParameters p = Example();
  p.negative_prompt = "";
  p.seed = 18446744073709551615u;
  p.cfg = 1.5;
  p.guidance = 3.5;
  p.from_image = true;
  p.denoise = 0.75;
  p.stop_at_clip_layer = -2;
  p.loras = {{"styles/ink.safetensors", 0.8, 1.0}};
  EXPECT_EQ(WebUiInfotext(p),
            "a cat <lora:ink:1:0.8>\nSteps: 20, Sampler: Euler, Schedule type: Normal, CFG scale: "
            "1.5, Distilled CFG Scale: 3.5, Seed: 18446744073709551615, Size: 128x128, Model: "
            "v1-5, Denoising strength: 0.75, Clip skip: 2, Version: distorchd 0.1.0");
}

TEST(WebUiInfotextTest, ValuesThatWouldBreakTheLineAreQuoted) {
  GenerationParameters p = Example();
  p.ckpt_name = "a, b: \"c\" \u65E5.safetensors";
  EXPECT_THAT(WebUiInfotext(p), HasSubstr("Model: \"a, b: \\\"c\\\" \u65E5\", Version"));
}

TEST(WebUiNamesTest, AreTheWebUisOrTheNameItself) {
  const std::map<std::string, std::string> expected = {{"euler", "Euler"},
                                                       {"euler_ancestral", "Euler a"},
                                                       {"heun", "Heun"},
                                                       {"dpm_2", "DPM2"},
                                                       {"dpmpp_2m", "DPM++ 2M"},
                                                       {"lms", "LMS"},
                                                       {"ddim", "DDIM"},
                                                       {"uni_pc", "UniPC"},
                                                       {"lcm", "LCM"},
                                                       {"dpmpp_2m_sde_gpu", "DPM++ 2M SDE"},
                                                       {"res_multistep", "res_multistep"}};
  for (const auto& [name, label] : expected) EXPECT_EQ(WebUiSamplerName(name), label);
  EXPECT_EQ(WebUiSchedulerName("karras"), "Karras");
  EXPECT_EQ(WebUiSchedulerName("linear_quadratic"), "linear_quadratic");
}

TEST(ComfyWorkflowTest, IsAConnectedGraph) {
  GenerationParameters p = Example();
  p.seed = 18446744073709551615u;
  const json graph = json::parse(ComfyWorkflow(p));
  EXPECT_EQ(graph.size(), 7u);
  for (const auto& node : graph) {
    for (const auto& input : node["inputs"]) {
      if (!input.is_array()) continue;
      EXPECT_TRUE(graph.contains(input[0].get<std::string>())) << node;
    }
  }
  const json sampler = NodeOf(graph, "KSampler");
  EXPECT_EQ(sampler["inputs"]["seed"].get<uint64_t>(), p.seed);
  EXPECT_EQ(sampler["inputs"]["steps"], 20);
  EXPECT_EQ(sampler["inputs"]["cfg"], 4.0);
  EXPECT_EQ(sampler["inputs"]["sampler_name"], "euler");
  EXPECT_EQ(sampler["inputs"]["scheduler"], "normal");
  EXPECT_EQ(sampler["inputs"]["denoise"], 1.0);
  EXPECT_EQ(Source(graph, sampler, "positive")["inputs"]["text"], "a cat");
  EXPECT_EQ(Source(graph, sampler, "negative")["inputs"]["text"], "dog");
  EXPECT_EQ(Source(graph, sampler, "latent_image")["inputs"],
            json({{"width", 128}, {"height", 128}, {"batch_size", 1}}));
  const json loader = Source(graph, sampler, "model");
  EXPECT_EQ(loader["class_type"], "CheckpointLoaderSimple");
  EXPECT_EQ(loader["inputs"], json({{"ckpt_name", "sd/v1-5.safetensors"}}));
  const json save = NodeOf(graph, "SaveImage");
  EXPECT_EQ(Source(graph, save, "images")["class_type"], "VAEDecode");
}

TEST(ComfyWorkflowTest, TheDisTorchLoaderHasItsFields) {
  GenerationParameters p = Example();
  p.loader_fields = {
      {"unet_compute_device", "cuda:0"}, {"unet_virtual_vram_gb", 4.0}, {"eject_models", true}};
  const json loader =
      NodeOf(json::parse(ComfyWorkflow(p)), "CheckpointLoaderAdvancedDisTorch2MultiGPU");
  EXPECT_EQ(loader["inputs"], json({{"ckpt_name", "sd/v1-5.safetensors"},
                                    {"unet_compute_device", "cuda:0"},
                                    {"unet_virtual_vram_gb", 4.0},
                                    {"eject_models", true}}));
}

TEST(ComfyWorkflowTest, AdaptersClipSkipGuidanceAndAnImageToStartFrom) {
  GenerationParameters p = Example();
  p.loras = {{"a.safetensors", 0.5, 0.25}, {"b.safetensors", 1, 1}};
  p.stop_at_clip_layer = -2;
  p.guidance = 3.5;
  p.from_image = p.masked = true;
  p.batch_size = 2;
  p.denoise = 0.6;
  const json graph = json::parse(ComfyWorkflow(p));
  const json sampler = NodeOf(graph, "KSampler");
  EXPECT_EQ(sampler["inputs"]["denoise"], 0.6);
  const json& second = Source(graph, sampler, "model");
  EXPECT_EQ(second["inputs"]["lora_name"], "b.safetensors");
  const json& first = Source(graph, second, "model");
  EXPECT_EQ(first["inputs"]["strength_clip"], 0.25);
  EXPECT_EQ(Source(graph, first, "clip")["class_type"], "CheckpointLoaderSimple");
  const json& guidance = Source(graph, sampler, "positive");
  EXPECT_EQ(guidance["inputs"]["guidance"], 3.5);
  const json& encode = Source(graph, guidance, "conditioning");
  EXPECT_EQ(Source(graph, encode, "clip")["inputs"]["stop_at_clip_layer"], -2);
  const json& batch = Source(graph, sampler, "latent_image");
  EXPECT_EQ(batch["inputs"]["amount"], 2);
  const json& mask = Source(graph, batch, "samples");
  EXPECT_EQ(Source(graph, mask, "mask")["class_type"], "LoadImage");
  EXPECT_EQ(mask["inputs"]["mask"][1], 1);
  EXPECT_EQ(Source(graph, mask, "samples")["class_type"], "VAEEncode");
}

TEST(ComfyWorkflowTest, WhatAModelWasShownOfAnImage) {
  GenerationParameters p = Example();
  p.from_image = true;
  p.shown = GenerationParameters::Shown::kPicture;
  json graph = json::parse(ComfyWorkflow(p));
  json sampler = NodeOf(graph, "KSampler");
  for (const char* const input : {"positive", "negative", "latent_image"})
    EXPECT_EQ(Source(graph, sampler, input)["class_type"], "InstructPixToPixConditioning");
  const json shown = Source(graph, sampler, "positive");
  EXPECT_EQ(Source(graph, shown, "positive")["inputs"]["text"], "a cat");
  EXPECT_EQ(Source(graph, shown, "negative")["inputs"]["text"], "dog");
  EXPECT_EQ(Source(graph, shown, "pixels")["class_type"], "LoadImage");

  p.denoise = 0.5;
  graph = json::parse(ComfyWorkflow(p));
  sampler = NodeOf(graph, "KSampler");
  EXPECT_EQ(Source(graph, sampler, "positive")["class_type"], "InstructPixToPixConditioning");
  EXPECT_EQ(Source(graph, sampler, "latent_image")["class_type"], "VAEEncode");

  p.shown = GenerationParameters::Shown::kMasked;
  p.masked = true;
  graph = json::parse(ComfyWorkflow(p));
  sampler = NodeOf(graph, "KSampler");
  const json inpaint = Source(graph, sampler, "latent_image");
  EXPECT_EQ(inpaint["class_type"], "InpaintModelConditioning");
  EXPECT_EQ(Source(graph, sampler, "negative"), inpaint);
  EXPECT_EQ(inpaint["inputs"]["mask"][1], 1);
}

TEST(GenerationTextTest, AnyPromptSurvivesInAPng) {
  for (const std::string prompt : {"line one\nline two, (\"quoted\":1.2)\\", "caf\u00E9",
                                   "\u65E5\u672C \U0001F600", "<lora:x:1>, \t%s {}"}) {
    GenerationParameters p = Example();
    p.prompt = prompt;
    p.negative_prompt = prompt;
    const auto png = EncodePng(Image8{1, 1, 3, {1, 2, 3}}, GenerationText(p));
    ASSERT_TRUE(png.ok()) << png.status();
    const ImageText text = DecodePng(*png).value().text;
    ASSERT_EQ(text.size(), 2u);
    EXPECT_EQ(text[0].first, "parameters");
    EXPECT_TRUE(
        absl::StartsWith(text[0].second, prompt + "\nNegative prompt: " + prompt + "\nSteps: 20"));
    EXPECT_EQ(text[1].first, "prompt");
    const json graph = json::parse(text[1].second);
    EXPECT_EQ(Source(graph, NodeOf(graph, "KSampler"), "positive")["inputs"]["text"], prompt);
  }
}

TEST(GenerationTextTest, IllFormedTextAndNulStillMakeAPng) {
  GenerationParameters p = Example();
  p.prompt = std::string("a\0b\xFF", 4);
  const ImageText text = GenerationText(p);
  EXPECT_TRUE(EncodePng(Image8{1, 1, 3, {1, 2, 3}}, text).ok());
  EXPECT_TRUE(absl::StartsWith(text[0].second, "ab\uFFFD\n"));
  const json graph = json::parse(text[1].second);
  EXPECT_EQ(Source(graph, NodeOf(graph, "KSampler"), "positive")["inputs"]["text"],
            std::string("a\0b\uFFFD", 6));
}

}  // namespace
}  // namespace distorch
