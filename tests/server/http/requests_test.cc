// What requests of the image APIs mean, and what is said of those that mean nothing.
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/pipeline/png_codec.h"
#include "server/http/lora_tags.h"
#include "server/http/openai_request.h"
#include "server/http/webui_names.h"
#include "server/http/webui_request.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const RequestLimits kLimits = {.image_side = 1024, .batch = 4, .steps = 100, .prompt_bytes = 40};

std::string Refusal(const absl::Status& status) {
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  return std::string(status.message());
}

TEST(OpenaiRequest, IsReadWithItsExtensions) {
  const auto request = ReadGeneration(
      R"({"prompt": "a cat", "model": "a.safetensors", "n": 2, "size": "640x384", "quality": "hd",
          "response_format": "b64_json", "output_format": "webp", "steps": 30, "cfg": "4.5",
          "sampler": "dpmpp_2m", "scheduler": "karras", "seed": 9007199254740991,
          "negative_prompt": "dog", "stream": true, "partial_images": 2, "user": null})",
      kLimits);
  ASSERT_TRUE(request.ok()) << request.status();
  const InferSpec& spec = request->image.spec;
  EXPECT_EQ(request->image.model, "a.safetensors");
  EXPECT_EQ(spec.prompt, "a cat");
  EXPECT_EQ(spec.negative_prompt, "dog");
  EXPECT_EQ(spec.width, 640);
  EXPECT_EQ(spec.height, 384);
  EXPECT_EQ(spec.batch_size, 2);
  EXPECT_EQ(spec.image_format, "webp");
  EXPECT_EQ(spec.options.steps, 30);
  EXPECT_EQ(spec.options.cfg, 4.5);
  EXPECT_EQ(spec.options.sampler_name, "dpmpp_2m");
  EXPECT_EQ(spec.options.scheduler, "karras");
  EXPECT_EQ(spec.options.seed, 9007199254740991u);
  EXPECT_TRUE(request->stream);
  EXPECT_EQ(spec.preview_every, 10);
}

TEST(OpenaiRequest, DefaultsStayWithinTheServersLimits) {
  const auto request = ReadGeneration(R"({"prompt": ""})", {.image_side = 260, .steps = 4});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->image.spec.width, 256);
  EXPECT_EQ(request->image.spec.options.steps, 4);
  EXPECT_FALSE(request->stream);
  EXPECT_EQ(request->image.spec.preview_every, 0);
}

TEST(OpenaiRequest, ErrorsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "body: is not a JSON object"},
      {"[]", "body: is not a JSON object"},
      {R"({"prompt": "a")", "body: is not a JSON object"},
      {R"({"n": 1})", "prompt: is required"},
      {R"({"prompt": 7})", "prompt: is not a string"},
      {"{\"prompt\": \"\xff\"}", "body: is not"},
      {R"({"prompt": "0123456789012345678901234567890123456789!"})", "prompt: has 41 bytes"},
      {R"({"prompt": "a", "n": 5})", "n: 5 is not from 1 to 4"},
      {R"({"prompt": "a", "n": 1.5})", "n: is not a whole number"},
      {R"({"prompt": "a", "n": [1]})", "n: is not a number"},
      {R"({"prompt": "a", "size": "big"})", "size: is neither"},
      {R"({"prompt": "a", "size": "64x65"})", "size: 65 is not a multiple of 8"},
      {R"({"prompt": "a", "size": "2048x64"})", "size: 2048 is not from 16 to 1024"},
      {R"({"prompt": "a", "size": "99999999999999999999x64"})", "size: is neither"},
      {R"({"prompt": "a", "steps": 101})", "steps: 101 is not from 1 to 100"},
      {R"({"prompt": "a", "cfg": -1})", "cfg: -1 is not from 0 to 1000"},
      {R"({"prompt": "a", "cfg": "nan"})", "cfg: nan is not from"},
      {R"({"prompt": "a", "seed": -2})", "seed: -2 is not from"},
      {R"({"prompt": "a", "seed": 1e300})", "seed: 1e+300 is not from"},
      {R"({"prompt": "a", "response_format": "url"})", "response_format: only b64_json"},
      {R"({"prompt": "a", "output_format": "gif"})", "output_format: is not one of"},
      {R"({"prompt": "a", "stream": "perhaps"})", "stream: is not true or false"},
  };
  for (const auto& [body, error] : cases) {
    EXPECT_THAT(Refusal(ReadGeneration(body, kLimits).status()), StartsWith(error)) << body;
  }
}

TEST(OpenaiRequest, BoundsWhatJsonMayHold) {
  const std::string deep = absl::StrCat(std::string(100'000, '['), std::string(100'000, ']'));
  EXPECT_THAT(Refusal(ReadGeneration(absl::StrCat("{\"a\":", deep, "}"), kLimits).status()),
              StartsWith("body: is nested deeper than 16"));
  std::string wide = "{\"a\":[0";
  for (int i = 0; i < 200'000; ++i) wide += ",0";
  EXPECT_THAT(Refusal(ReadGeneration(wide + "]}", kLimits).status()), HasSubstr("10000 values"));
}

TEST(OpenaiRequest, AnEditIsAForm) {
  const absl::StatusOr<std::string> mask = EncodePng({1, 2, 4, {9, 9, 9, 0, 7, 7, 7, 255}}, {});
  ASSERT_TRUE(mask.ok()) << mask.status();
  const auto edit = ReadEdit(
      {{"image", "PNG"}, {"mask", *mask}, {"prompt", "a"}, {"n", "2"}, {"cfg", "3"}}, kLimits);
  ASSERT_TRUE(edit.ok()) << edit.status();
  EXPECT_EQ(edit->image.spec.init_image, "PNG");
  const absl::StatusOr<DecodedPng> repaint = DecodePng(edit->image.spec.mask_image);
  ASSERT_TRUE(repaint.ok()) << repaint.status();
  EXPECT_THAT(repaint->image.pixels, ElementsAre(255, 255, 255, 0, 0, 0));
  EXPECT_EQ(edit->image.spec.batch_size, 2);
  EXPECT_EQ(edit->image.spec.options.cfg, 3);
  EXPECT_EQ(edit->image.spec.options.denoise, 1);
  const auto unmasked = ReadEdit({{"image[]", "PNG"}, {"prompt", "a"}}, kLimits);
  ASSERT_TRUE(unmasked.ok()) << unmasked.status();
  EXPECT_EQ(unmasked->image.spec.options.denoise, 0.75);
  const absl::StatusOr<std::string> opaque = EncodePng({1, 1, 3, {9, 9, 9}}, {});
  ASSERT_TRUE(opaque.ok()) << opaque.status();
  for (const std::string& wrong : {*opaque, std::string("no picture")}) {
    const auto refused = ReadEdit({{"image", "A"}, {"mask", wrong}, {"prompt", "a"}}, kLimits);
    EXPECT_THAT(Refusal(refused.status()), StartsWith("mask: "));
  }
  EXPECT_THAT(Refusal(ReadEdit({{"prompt", "a"}}, kLimits).status()), StartsWith("image: is req"));
  EXPECT_THAT(
      Refusal(ReadEdit({{"image", "A"}, {"image", "B"}, {"prompt", "a"}}, kLimits).status()),
      StartsWith("image: one picture"));
  EXPECT_THAT(Refusal(ReadEdit({{"image", "A"}, {"prompt", "a"}, {"n", "two"}}, kLimits).status()),
              StartsWith("n: is not a number"));
}

TEST(WebuiRequest, IsReadWithWebuisNames) {
  const auto request = ReadWebui(
      R"({"prompt": "a cat", "negative_prompt": "dog", "seed": -1, "sampler_name": "DPM++ 2M Karras",
          "batch_size": 2, "n_iter": 3, "steps": 30, "cfg_scale": 5, "width": 128, "height": 64,
          "enable_hr": false, "styles": [], "alwayson_scripts": {}, "subseed": -1, "eta": 0,
          "override_settings": {"sd_model_checkpoint": "b.gguf"}, "init_images": ["x"]})",
      false, kLimits);
  ASSERT_TRUE(request.ok()) << request.status();
  const InferSpec& spec = request->image.spec;
  EXPECT_EQ(request->image.model, "b.gguf");
  EXPECT_EQ(request->iterations, 3);
  EXPECT_EQ(spec.options.sampler_name, "dpmpp_2m");
  EXPECT_EQ(spec.options.scheduler, "karras");
  EXPECT_EQ(spec.batch_size, 2);
  EXPECT_EQ(spec.options.steps, 30);
  EXPECT_EQ(spec.preview_every, 3);
  EXPECT_EQ(spec.width, 128);
  EXPECT_EQ(spec.height, 64);
  EXPECT_TRUE(spec.init_image.empty());
  EXPECT_FALSE(request->echo.contains("init_images"));
}

TEST(WebuiRequest, TakesPicturesInBase64) {
  const std::string picture = absl::Base64Escape("PNG");
  const auto request =
      ReadWebui(absl::StrCat(R"({"init_images": ["data:image/png;base64,)", picture,
                             R"("], "mask": ")", picture, R"(", "denoising_strength": 0.5})"),
                true, kLimits);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->image.spec.init_image, "PNG");
  EXPECT_EQ(request->image.spec.mask_image, "PNG");
  EXPECT_EQ(request->image.spec.options.denoise, 0.5);
  for (const char* images : {"[]", "[1]", "\"x\"", "[\"a\", \"b\"]", "null"}) {
    EXPECT_THAT(
        Refusal(ReadWebui(absl::StrCat("{\"init_images\":", images, "}"), true, kLimits).status()),
        StartsWith("init_images: "));
  }
  EXPECT_THAT(Refusal(ReadWebui(R"({"init_images": ["*"]})", true, kLimits).status()),
              StartsWith("init_images: is not a picture in base64"));
}

TEST(WebuiRequest, RefusesWhatItWouldHaveToIgnore) {
  for (const char* field :
       {R"("enable_hr": true)", R"("restore_faces": true)", R"("tiling": 1)",
        R"("subseed_strength": 0.5)", R"("script_name": "x")", R"("styles": ["x"])",
        R"("inpainting_mask_invert": 1)", R"("alwayson_scripts": {"controlnet": {}})"}) {
    EXPECT_THAT(Refusal(ReadWebui(absl::StrCat("{", field, "}"), false, kLimits).status()),
                HasSubstr(": is not served"))
        << field;
  }
  EXPECT_THAT(Refusal(ReadWebui(R"({"prompt": "a <lora:x:y>"})", false, kLimits).status()),
              StartsWith("prompt: 'x:y' has a strength that is no number"));
  EXPECT_THAT(Refusal(ReadWebui(R"({"override_settings": 1})", false, kLimits).status()),
              StartsWith("override_settings: "));
}

TEST(WebuiRequest, TakesAdaptersOutOfThePrompt) {
  const auto request = ReadWebui(
      R"({"prompt": "a <lora:ink:0.8>cat", "negative_prompt": "<lora:x>"})", false, kLimits);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompt, "a <lora:ink:0.8>cat");
  const InferSpec& spec = request->image.spec;
  EXPECT_EQ(spec.prompt, "a cat");
  EXPECT_EQ(spec.negative_prompt, "<lora:x>");  // as WebUI leaves it
  ASSERT_EQ(spec.loras.size(), 1u);
  EXPECT_EQ(spec.loras[0].name, "ink");
}

TEST(LoraTags, AreReadAsWebuiReadsThem) {
  struct Case {
    std::string_view prompt, text, loras;
  };
  for (const auto& [prompt, text, loras] :
       {Case{"a cat", "a cat", ""}, Case{"a <lora:x> b", "a  b", "x 1 1;"},
        Case{"<lora:x:0.5>", "", "x 0.5 0.5;"}, Case{"<lora:x:-1:0.25>", "", "x 0.25 -1;"},
        Case{"<lora:x:unet=0.3>", "", "x 0.3 1;"}, Case{"<lora:x:te=0.3>", "", "x 0.3 0.3;"},
        Case{"<lora:x:0.5:unet=2:te=1>", "", "x 2 1;"},
        Case{"<lyco:a/b.pt:1>c<lora:x:0>", "c", "a/b.pt 1 1;x 0 0;"},
        Case{"a < b <lora:x", "a < b <lora:x", ""}, Case{"<hypernet:x:1>", "<hypernet:x:1>", ""},
        Case{"<<lora:x>>", "<>", "x 1 1;"}}) {
    const auto tagged = ReadLoraTags(prompt);
    ASSERT_TRUE(tagged.ok()) << tagged.status();
    EXPECT_EQ(tagged->text, text) << prompt;
    std::string read;
    for (const InferLora& lora : tagged->loras)
      absl::StrAppend(&read, lora.name, " ", lora.strength_model, " ", lora.strength_clip, ";");
    EXPECT_EQ(read, loras) << prompt;
  }
}

TEST(LoraTags, SayWhatIsWrong) {
  for (const auto& [prompt, message] :
       {std::pair{"<lora:>", "'' names no adapter"},
        std::pair{"<lora::1>", "':1' names no adapter"}, std::pair{"<lora:x:>", "no number"},
        std::pair{"<lora:x:te=>", "no number"},
        std::pair{"<lora:x:1:2:3>", "'x:1:2:3' says more than strengths"},
        std::pair{"<lora:x:1:lbw=ALL>", "says more than strengths"}}) {
    EXPECT_THAT(Refusal(ReadLoraTags(prompt).status()), HasSubstr(message)) << prompt;
  }
  std::string many;
  for (std::size_t i = 0; i <= kMaxLoraTags; ++i) many += "<lora:x>";
  EXPECT_THAT(Refusal(ReadLoraTags(many).status()), HasSubstr("over 32 adapters"));
}

TEST(LoraTags, NamesMayLackFoldersAndExtension) {
  const std::vector<std::string> names = {"b/ink.pt", "ink.safetensors", "my.style.v2.safetensors"};
  EXPECT_EQ(FindLora("ink.safetensors", names), "ink.safetensors");
  EXPECT_EQ(FindLora("ink", names), "b/ink.pt");
  EXPECT_EQ(FindLora("my.style.v2", names), "my.style.v2.safetensors");
  EXPECT_EQ(FindLora("inc", names), "inc");
}

TEST(WebuiNames, AreMappedToOurs) {
  const std::array<std::string_view, 4> cases[] = {
      {"Euler a", "", "euler_ancestral", "normal"},
      {"euler A", "Karras", "euler_ancestral", "karras"},
      {"DPM++ 2M", "Automatic", "dpmpp_2m", "karras"},
      {"DPM++ 2M Karras", "", "dpmpp_2m", "karras"},
      {"DPM++ 2M Karras", "Automatic", "dpmpp_2m", "karras"},
      {"DPM++ 2M SDE Exponential", "", "dpmpp_2m_sde", "exponential"},
      {"DPM++ 2M SDE", "SGM Uniform", "dpmpp_2m_sde", "sgm_uniform"},
      {"DDIM", "", "ddim", "ddim_uniform"},
      {"res_multistep", "beta", "res_multistep", "beta"},
      {"res_multistep", "", "res_multistep", "normal"},
      {"No such", "", "No such", "normal"},
  };
  for (const auto& [sampler, scheduler, our_sampler, our_scheduler] : cases) {
    const SamplerChoice choice = ChooseSampler(sampler, scheduler);
    EXPECT_EQ(choice.sampler, our_sampler) << sampler;
    EXPECT_EQ(choice.scheduler, our_scheduler) << sampler << " " << scheduler;
  }
}

}  // namespace
}  // namespace distorch
