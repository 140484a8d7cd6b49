#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "server/open_inference_fields.h"
#include "server/open_inference_models.h"
#include "server/open_inference_request.h"
#include "server/open_inference_tensor.h"

namespace distorch {
namespace {

using inference::ModelInferRequest;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

const ModelHandles kHandles = {"m", "c", "v"};

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

ModelInferRequest::InferInputTensor* AddInput(const std::string& name, const std::string& datatype,
                                              const std::vector<int64_t>& shape,
                                              ModelInferRequest* request) {
  auto* input = request->add_inputs();
  input->set_name(name);
  input->set_datatype(datatype);
  input->mutable_shape()->Assign(shape.begin(), shape.end());
  return input;
}

void AddRaw(const std::string& name, const std::string& datatype, const std::vector<int64_t>& shape,
            const std::string& raw, ModelInferRequest* request) {
  AddInput(name, datatype, shape, request);
  request->add_raw_input_contents(raw);
}

ModelInferRequest Prompts(const std::vector<std::string>& prompts) {
  ModelInferRequest request;
  AddRaw("prompt", "BYTES", {static_cast<int64_t>(prompts.size())}, PackBytes(prompts), &request);
  return request;
}

template <typename T>
std::string MessageOf(const absl::StatusOr<T>& result) {
  EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
  return std::string(result.status().message());
}

TEST(OpenInferenceFieldsTest, AreThoseOfBothRequests) {
  std::vector<std::string> described;
  for (const OpenField& field : InferFields())
    described.push_back(std::string(field.name) + " " + std::string(field.datatype));
  EXPECT_EQ(described.front(), "prompt BYTES");
  for (const char* expected :
       {"negative_prompt BYTES", "width INT32", "batch_size INT32", "init_image BYTES",
        "mask_image BYTES", "image_format BYTES", "tile_size INT32", "seed UINT64", "steps INT32",
        "cfg FP64", "sampler_name BYTES", "scheduler BYTES", "denoise FP64", "add_noise BOOL"})
    EXPECT_THAT(described, ::testing::Contains(expected));
  for (const OpenField& field : InferFields()) {
    EXPECT_NE(field.name, "model");
    EXPECT_NE(field.name, "options");
  }
}

TEST(OpenInferenceFieldsTest, TakeWhatSaysAValueOfTheirType) {
  v1::LoadCheckpointRequest load;
  EXPECT_TRUE(SetLoadField("unet_virtual_vram_gb", std::string("2.5"), &load).ok());
  EXPECT_TRUE(SetLoadField("clip_virtual_vram_gb", int64_t{3}, &load).ok());
  EXPECT_TRUE(SetLoadField("eject_models", std::string("true"), &load).ok());
  EXPECT_TRUE(SetLoadField("lease_seconds", uint64_t{60}, &load).ok());
  EXPECT_EQ(load.unet_virtual_vram_gb(), 2.5);
  EXPECT_EQ(load.clip_virtual_vram_gb(), 3);
  EXPECT_TRUE(load.eject_models());
  EXPECT_EQ(load.lease_seconds(), 60);
}

TEST(OpenInferenceFieldsTest, NameWhatTheyRefuse) {
  v1::InferRequest infer;
  const std::vector<std::pair<std::pair<std::string, FieldValue>, std::string>> cases = {
      {{"steps", 2.5}, "steps: 2.5 is not an integer of 32 bits"},
      {{"steps", int64_t{1} << 40}, "steps: 1099511627776 is not an integer of 32 bits"},
      {{"steps", std::string("many")}, "steps: 'many' is not an integer of 32 bits"},
      {{"seed", int64_t{-1}}, "seed: -1 is not an integer from 0 to 18446744073709551615"},
      {{"cfg", std::string("nan")}, "cfg: 'nan' is not a finite number"},
      {{"add_noise", int64_t{1}}, "add_noise: 1 is not true or false"},
      {{"prompt", 1.0}, "prompt: 1 is not BYTES, or a string"},
      {{"prompt", std::string("\xFF")}, "prompt: is not UTF-8"},
  };
  for (const auto& [given, message] : cases)
    EXPECT_EQ(SetInferField(given.first, given.second, &infer).message(), message);
  EXPECT_THAT(SetInferField("model", std::string("m"), &infer).message(),
              HasSubstr("'model': is not one of prompt, negative_prompt, width"));
}

TEST(OpenInferenceTensorTest, ReadsTypedAndRawContentsAlike) {
  ModelInferRequest request;
  AddInput("steps", "INT32", {1}, &request)->mutable_contents()->add_int_contents(-7);
  AddInput("cfg", "FP32", {2, 1}, &request)->mutable_contents()->add_fp32_contents(7.5f);
  request.mutable_inputs(1)->mutable_contents()->add_fp32_contents(-1.0f);
  AddInput("prompt", "BYTES", {1}, &request)->mutable_contents()->add_bytes_contents("a\0b");
  const std::vector<std::string> raws = {Bytes<int32_t>({-7}), Bytes<float>({7.5f, -1.0f}),
                                         PackBytes({"a\0b"})};
  for (int i = 0; i < 3; ++i) {
    const auto typed = ReadTensor(request.inputs(i), nullptr, 4);
    const auto raw = ReadTensor(request.inputs(i), &raws[static_cast<std::size_t>(i)], 4);
    ASSERT_TRUE(typed.ok()) << typed.status();
    ASSERT_TRUE(raw.ok()) << raw.status();
    EXPECT_EQ(*typed, *raw);
  }
  EXPECT_EQ(*ReadTensor(request.inputs(0), nullptr, 4), std::vector<FieldValue>{int64_t{-7}});
}

TEST(OpenInferenceTensorTest, SaysWhatDoesNotAgree) {
  struct Case {
    std::string datatype;
    std::vector<int64_t> shape;
    std::string raw, message;
  };
  const std::vector<Case> cases = {
      {"INT32", {2}, Bytes<int32_t>({1}), "x: has 4 bytes; its shape needs 8"},
      {"FP16", {1}, "ab", "x: datatype 'FP16' is not one of BOOL, INT8"},
      {"INT32", {0}, "", "x: shape [0] is not of 1 to 64 elements"},
      {"INT32", {-1}, "", "x: shape [-1] is not of 1 to 64 elements"},
      {"INT32", {int64_t{1} << 62, 4}, "", "is not of 1 to 64 elements"},
      {"INT32", {64, 2}, "", "x: shape [64, 2] is not of 1 to 64 elements"},
      {"BYTES", {1}, "abc", "x: ends within element 0 of 1"},
      {"BYTES", {1}, Bytes<uint32_t>({9}) + "abc", "x: element 0 has 9 bytes, but 3 are left"},
      {"BYTES", {1}, PackBytes({"a", "b"}), "x: has 5 bytes after the 1 elements"},
  };
  for (const Case& c : cases) {
    ModelInferRequest request;
    const auto* input = AddInput("x", c.datatype, c.shape, &request);
    EXPECT_THAT(MessageOf(ReadTensor(*input, &c.raw, 64)), HasSubstr(c.message));
  }
}

TEST(OpenInferenceRequestTest, DefaultsAreTheServices) {
  const auto infer = ToOpenInfer(Prompts({"a hat"}), kHandles);
  ASSERT_TRUE(infer.ok()) << infer.status();
  ASSERT_EQ(infer->items.size(), 1u);
  const InferSpec spec = infer->SpecOf(infer->items[0]);
  EXPECT_EQ(spec.model, "m");
  EXPECT_EQ(spec.prompt, "a hat");
  EXPECT_EQ(spec.width, 512);
  EXPECT_EQ(spec.options.steps, 20);
  EXPECT_THAT(infer->outputs, ElementsAre("image", "seed"));
  EXPECT_TRUE(spec.outputs.pixels);
  EXPECT_FALSE(spec.outputs.files);
}

TEST(OpenInferenceRequestTest, TakesInputsAndParameters) {
  ModelInferRequest request = Prompts({"one", "two"});
  AddRaw("seed", "UINT64", {2}, Bytes<uint64_t>({5, ~uint64_t{0}}), &request);
  AddRaw("width", "INT32", {1}, Bytes<int32_t>({64}), &request);
  (*request.mutable_parameters())["cfg"].set_double_param(2.5);
  (*request.mutable_parameters())["image_format"].set_string_param("jpeg");
  (*request.mutable_parameters())["negative_prompt"].set_string_param("blurry");
  const auto infer = ToOpenInfer(request, kHandles);
  ASSERT_TRUE(infer.ok()) << infer.status();
  ASSERT_EQ(infer->items.size(), 2u);
  const InferSpec second = infer->SpecOf(infer->items[1]);
  EXPECT_EQ(second.prompt, "two");
  EXPECT_EQ(second.negative_prompt, "blurry");
  EXPECT_EQ(second.options.seed, ~uint64_t{0});
  EXPECT_EQ(second.options.cfg, 2.5);
  EXPECT_EQ(second.width, 64);
  EXPECT_EQ(infer->SpecOf(infer->items[0]).options.seed, 5u);
  EXPECT_THAT(infer->outputs, ElementsAre("image_file", "seed"));
}

TEST(OpenInferenceRequestTest, NamesWhatIsWrong) {
  using Spoil = std::function<void(ModelInferRequest*)>;
  const std::vector<std::pair<Spoil, std::string>> cases = {
      {[](auto* r) { r->mutable_inputs(0)->set_name("text"); }, "prompt: is required"},
      {[](auto* r) { r->add_raw_input_contents("more"); },
       "raw_input_contents: has 2 entries for 1 inputs"},
      {[](auto* r) { r->mutable_inputs(0)->mutable_contents(); },
       "prompt: has contents beside raw_input_contents"},
      {[](auto* r) { AddRaw("prompt", "BYTES", {1}, PackBytes({"b"}), r); },
       "prompt: is given twice"},
      {[](auto* r) { (*r->mutable_parameters())["prompt"].set_string_param("b"); },
       "prompt: is given twice"},
      {[](auto* r) { (*r->mutable_parameters())["step"].set_int64_param(2); },
       "'step': is not one of prompt"},
      {[](auto* r) { (*r->mutable_parameters())["steps"].set_int64_param(-2); },
       "steps: -2 is not from 1 to"},
      {[](auto* r) { (*r->mutable_parameters())["steps"]; }, "steps: has no value"},
      {[](auto* r) {
         AddRaw("steps", "INT32", {2}, Bytes<int32_t>({1, 2}), r);
       },
       "steps: has 2 elements; allowed: 1"},
      {[](auto* r) {
         AddRaw("seed", "INT64", {2}, Bytes<int64_t>({1, 2}), r);
       },
       "seed: has 2 elements; allowed: 1, or one for each of the 1 prompts"},
      {[](auto* r) { r->add_outputs()->set_name("picture"); },
       "outputs: 'picture' is not one of image, image_file, latent, seed"},
      {[](auto* r) {
         r->add_outputs()->set_name("image");
         r->add_outputs()->set_name("image");
       },
       "image: is asked for twice"},
      {[](auto* r) {
         (*r->mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param(
             "r");
       },
       "prompt: parameter 'shared_memory_region' is not supported"},
      {[](auto* r) {
         (*r->mutable_parameters())["width"].set_int64_param(8192);
         (*r->mutable_parameters())["height"].set_int64_param(8192);
         (*r->mutable_parameters())["batch_size"].set_int64_param(64);
       },
       "image: has 12884901888 bytes"},
  };
  for (const auto& [spoil, message] : cases) {
    ModelInferRequest request = Prompts({"a"});
    spoil(&request);
    EXPECT_THAT(MessageOf(ToOpenInfer(request, kHandles)), HasSubstr(message));
  }
}

TEST(OpenInferenceRequestTest, BoundsTheImagesOfAllPrompts) {
  ModelInferRequest request = Prompts({"a", "b", "c"});
  (*request.mutable_parameters())["batch_size"].set_int64_param(32);
  EXPECT_THAT(
      MessageOf(ToOpenInfer(request, kHandles)),
      HasSubstr(
          "batch_size: 32 for each of 3 prompts is 96 images; the server takes 64 (--max_batch)"));
}

TEST(OpenInferenceRequestTest, LimitsEachPrompt) {
  RequestLimits limits;
  limits.prompt_bytes = 3;
  EXPECT_TRUE(ToOpenInfer(Prompts({"abc", "def"}), kHandles, limits).ok());
  EXPECT_THAT(MessageOf(ToOpenInfer(Prompts({"abc", "defg"}), kHandles, limits)),
              HasSubstr("prompt: has 4 bytes"));
}

TEST(OpenInferenceRequestTest, JoinsTheResultsOfAllPrompts) {
  ModelInferRequest request = Prompts({"a", "b"});
  for (const char* name : {"seed", "image", "image_file"}) request.add_outputs()->set_name(name);
  const auto infer = ToOpenInfer(request, kHandles);
  ASSERT_TRUE(infer.ok()) << infer.status();
  std::vector<InferResult> results(2);
  for (uint64_t i = 0; i < 2; ++i) {
    results[i].seed = i + 1;
    results[i].png = {i == 0 ? "first" : "2nd"};
    results[i].pixels = HostTensor{DType::kU8, {1, 1, 1, 3}, i == 0 ? "abc" : "def"};
    results[i].warnings = {"no such embedding"};
  }
  inference::ModelInferResponse response;
  ToProto(*infer, results, &response);
  ASSERT_EQ(response.outputs_size(), 3);
  EXPECT_EQ(response.outputs(0).name(), "seed");
  EXPECT_EQ(response.raw_output_contents(0), Bytes<uint64_t>({1, 2}));
  EXPECT_THAT(response.outputs(1).shape(), ElementsAre(2, 1, 1, 3));
  EXPECT_EQ(response.raw_output_contents(1), "abcdef");
  EXPECT_EQ(response.outputs(2).datatype(), "BYTES");
  EXPECT_EQ(response.raw_output_contents(2), PackBytes({"first", "2nd"}));
  EXPECT_EQ(response.parameters().at("warnings").string_param(), "no such embedding");
}

inference::RepositoryModelLoadRequest Config(const std::string& config) {
  inference::RepositoryModelLoadRequest request;
  request.set_model_name("a.safetensors");
  (*request.mutable_parameters())["config"].set_string_param(config);
  return request;
}

TEST(OpenInferenceLoadTest, TakesParametersAndBothFormsOfConfig) {
  inference::RepositoryModelLoadRequest request =
      Config(R"({"name": "a.safetensors", "max_batch_size": 0, "eject_models": true,
                 "parameters": {"unet_virtual_vram_gb": {"string_value": "4"},
                                "clip_virtual_vram_gb": 0.5}})");
  (*request.mutable_parameters())["vae_device"].set_string_param("cpu");
  const auto load = ToOpenLoad(request);
  ASSERT_TRUE(load.ok()) << load.status();
  EXPECT_EQ(load->spec.ckpt_name, "a.safetensors");
  EXPECT_EQ(load->spec.vae_device, "cpu");
  EXPECT_EQ(load->spec.unet_virtual_vram_gb, 4);
  EXPECT_EQ(load->spec.clip_virtual_vram_gb, 0.5);
  EXPECT_EQ(load->spec.eject_models, true);
  EXPECT_THAT(load->fields, UnorderedElementsAre(
                                Pair("vae_device", "cpu"), Pair("unet_virtual_vram_gb", "4"),
                                Pair("clip_virtual_vram_gb", "0.5"), Pair("eject_models", "true")));
}

TEST(OpenInferenceLoadTest, NamesWhatIsWrong) {
  for (const auto& [config, message] : std::vector<std::pair<std::string, std::string>>{
           {"{", "config: is no object of JSON"},
           {"[]", "config: is no object of JSON"},
           {std::string(60000, '['), "config: is no object of JSON"},
           {std::string(70000, ' '), "config: has 70000 bytes"},
           {R"({"name": "b"})", "config: name: is not the model's"},
           {R"({"parameters": 1})", "config: parameters: is no object"},
           {R"({"vram": 1})", "config: 'vram': is not one of unet_compute_device"},
           {R"({"ckpt_name": "b"})", "config: 'ckpt_name': is not one of"},
           {R"({"vae_device": null})", "config: 'vae_device': is no number, string"},
           {R"({"unet_virtual_vram_gb": "x"})",
            "config: unet_virtual_vram_gb: 'x' is not a finite number"},
           {R"({"unet_virtual_vram_gb": 1000})", "unet_virtual_vram_gb: 1000 is not a number from"},
       }) {
    EXPECT_THAT(MessageOf(ToOpenLoad(Config(config))), HasSubstr(message));
  }
  inference::RepositoryModelLoadRequest files = Config("{}");
  (*files.mutable_parameters())["file:1/model.bin"].set_bytes_param("x");
  EXPECT_THAT(MessageOf(ToOpenLoad(files)), HasSubstr("'file:1/model.bin': files are not taken"));
  inference::RepositoryModelLoadRequest elsewhere = Config("{}");
  elsewhere.set_repository_name("other");
  EXPECT_THAT(MessageOf(ToOpenLoad(elsewhere)), HasSubstr("repository_name: 'other'"));
}

std::vector<ModelInfo> Infos(const std::string& name, const std::vector<std::string>& models) {
  std::vector<ModelInfo> infos;
  for (const std::string& handle : models)
    infos.push_back({handle, "model", name, "sd1", "READY", 0, {}, {{"cuda:1", 7}}});
  infos.push_back({"clip", "clip", name, "sd1", "READY", 0, {}, {{"cpu", 5}}});
  infos.push_back({"vae", "vae", name, "sd1", "READY", 0, {}, {}});
  return infos;
}

TEST(OpenInferenceModelsTest, ANameMeansWhatWasLoadedLast) {
  OpenLoads loads;
  auto model = OpenModelsOf(Infos("a", {"m1"})).at("a");
  EXPECT_EQ(loads.Find("a", model)->model, "m1");
  model = OpenModelsOf(Infos("a", {"m1", "m2"})).at("a");
  EXPECT_TRUE(absl::IsFailedPrecondition(loads.Find("a", model).status()));
  EXPECT_THAT(loads.Put("a", {"m1", "clip", "vae"}, {}), IsEmpty());
  EXPECT_EQ(loads.Find("a", model)->model, "m1");
  EXPECT_THAT(loads.Put("a", {"m2", "clip", "vae"}, {{"vae_device", "cpu"}}), ElementsAre("m1"));
  EXPECT_EQ(loads.Find("a", model)->model, "m2");
  EXPECT_THAT(loads.Fields("a"), ElementsAre(Pair("vae_device", "cpu")));
  loads.Remove("a");
  EXPECT_THAT(loads.Fields("a"), IsEmpty());
  model = OpenModelsOf(Infos("a", {"m1"})).at("a");
  model.ready.erase("clip");
  EXPECT_THAT(loads.Find("a", model).status().message(), HasSubstr("has no clip"));
}

TEST(OpenInferenceModelsTest, WhatIsReadyGoesBeforeWhatIsStored) {
  auto infos = Infos("a", {"m1", "m2"});
  for (ModelInfo& info : infos) {
    if (info.handle == "m1") info.state = "STORED";
  }
  const OpenModel model = OpenModelsOf(infos).at("a");
  EXPECT_THAT(model.ready.at("model"), ElementsAre("m2"));
  EXPECT_THAT(model.handles, Contains("m1"));
}

TEST(OpenInferenceModelsTest, IndexSaysWhyAModelIsUnavailable) {
  auto infos = Infos("a", {"m1"});
  infos.push_back({"x", "model", "b", "sd1", "LOADING", 0, {}, {}});
  infos.push_back({"y", "model", "e", "sd1", "STORED", 0, {}, {}});
  const std::vector<CheckpointInfo> checkpoints = {
      {"a", 1, "", "", ""}, {"c", 1, "", "", ""}, {"d", 1, "", "", "too short"}};
  inference::RepositoryIndexResponse index;
  ToProto(checkpoints, OpenModelsOf(infos), /*ready_only=*/false, &index);
  std::vector<std::string> lines;
  for (const auto& model : index.models())
    lines.push_back(model.name() + " " + model.version() + " " + model.state() + " " +
                    model.reason());
  EXPECT_THAT(lines, ElementsAre("a 1 READY ", "b 1 LOADING ", "c 1 UNAVAILABLE not loaded",
                                 "d 1 UNAVAILABLE too short", "e 1 READY "));
  inference::RepositoryIndexResponse ready;
  ToProto(checkpoints, OpenModelsOf(infos), /*ready_only=*/true, &ready);
  ASSERT_EQ(ready.models_size(), 2);
  EXPECT_EQ(ready.models(0).name(), "a");
}

TEST(OpenInferenceModelsTest, CountsRequestsAndTheirPhases) {
  OpenStatistics statistics;
  std::vector<InferResult> results(2);
  results[0].phase_seconds = {{"queue", 0.5}, {"text", 1}, {"encode", 1}, {"sample", 4}};
  results[1].phase_seconds = {{"sample", 2}, {"decode", 0.25}};
  statistics.Succeeded("a", results, 6, absl::Seconds(9));
  statistics.Failed("a", absl::Seconds(1));
  inference::ModelStatisticsResponse response;
  statistics.Read("", OpenModelsOf(Infos("b", {"m"})), &response);
  ASSERT_EQ(response.model_stats_size(), 2);
  const inference::ModelStatistics& a = response.model_stats(0);
  EXPECT_EQ(a.name(), "a");
  EXPECT_EQ(a.inference_count(), 6u);
  EXPECT_EQ(a.execution_count(), 2u);
  EXPECT_EQ(a.inference_stats().success().count(), 1u);
  EXPECT_EQ(a.inference_stats().success().ns(), 9'000'000'000u);
  EXPECT_EQ(a.inference_stats().fail().count(), 1u);
  EXPECT_EQ(a.inference_stats().queue().ns(), 500'000'000u);
  EXPECT_EQ(a.inference_stats().compute_input().ns(), 2'000'000'000u);
  EXPECT_EQ(a.inference_stats().compute_infer().ns(), 6'000'000'000u);
  EXPECT_EQ(a.inference_stats().compute_output().ns(), 250'000'000u);
  const inference::ModelStatistics& b = response.model_stats(1);
  ASSERT_EQ(b.memory_usage_size(), 2);
  EXPECT_EQ(b.memory_usage(0).type(), "CPU");
  EXPECT_EQ(b.memory_usage(1).type(), "GPU");
  EXPECT_EQ(b.memory_usage(1).id(), 1);
  EXPECT_EQ(b.memory_usage(1).byte_size(), 7u);
}

}  // namespace
}  // namespace distorch
