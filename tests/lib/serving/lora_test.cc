// ApplyLora through the core: handles, shared memory, stacks, clip skip, and bad input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "lib/pipeline/png_codec.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_checkpoint.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using testing::HasSubstr;

const std::string kGoldenDir = DISTORCH_GOLDEN_DIR;
const std::string kCacheDir = DISTORCH_GOLDEN_CACHE;

class LoraTest : public testing::Test {
 protected:
  LoraTest() {
    const auto path = GoldenCheckpoint(kGoldenDir, "sd1", kCacheDir);
    EXPECT_TRUE(path.ok()) << path.status();
    ckpt_name_ = path->substr(path->rfind('/') + 1);
    CoreOptions options;
    options.checkpoint_dirs = {kCacheDir};
    options.lora_dirs = {kGoldenDir, folder_.path()};
    options.simulate_devices = "cuda:0=1GiB,cuda:1=1GiB";
    options.compute_dtype = "fp32";
    auto core = DaemonCore::Create(options, nullptr);
    EXPECT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    client_ = std::make_unique<CoreClient>(core_.get());
    free_at_start_ = WeightBytes();
    loaded_ = Load();
  }

  LoadResult Load(bool eject = true, int64_t* bytes_read = nullptr) {
    LoadSpec spec;
    spec.eject_models = eject;
    spec.ckpt_name = ckpt_name_;
    spec.unet_compute_device = spec.clip_compute_device = spec.vae_device = "cuda:0";
    spec.unet_expert_mode_allocations = "cuda:0,60%;cuda:1,40%";
    const auto loaded =
        client_->Load(spec, std::make_shared<CancelToken>(), [&](const LoadProgress& progress) {
          if (bytes_read != nullptr) *bytes_read = progress.bytes_done;
        });
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *loaded : LoadResult();
  }

  absl::StatusOr<ApplyLoraResult> Apply(const std::string& model, const std::string& clip,
                                        const std::string& name, double strength_model = 0.8,
                                        double strength_clip = 0.8) {
    return client_->ApplyLora({model, clip, name, strength_model, strength_clip});
  }
  ApplyLoraResult Applied(const std::string& model, const std::string& clip,
                          const std::string& name, double strength = 0.8) {
    const auto result = Apply(model, clip, name, strength, strength);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : ApplyLoraResult();
  }

  // The ledger's, by device.
  std::map<std::string, int64_t> WeightBytes() {
    std::map<std::string, int64_t> bytes;
    for (const DeviceInfo& device : core_->ListDevices()) {
      bytes[device.name] = device.weights_bytes;
      EXPECT_EQ(device.reserved_bytes, 0) << device.name;
    }
    return bytes;
  }
  // The same as ListModels has it.
  std::map<std::string, int64_t> StoredBytes() {
    std::map<std::string, int64_t> bytes;
    for (const ModelInfo& model : core_->ListModels()) {
      for (const auto& [device, unshared] : model.unshared_bytes) bytes[device] += unshared;
    }
    for (const DeviceInfo& device : core_->ListDevices()) bytes.try_emplace(device.name, 0);
    return bytes;
  }
  std::map<std::string, int64_t> Unload(std::vector<std::string> handles) {
    UnloadSpec spec;
    spec.handles = std::move(handles);
    const auto receipt = client_->Unload(spec);
    EXPECT_TRUE(receipt.ok()) << receipt.status();
    return receipt.ok() ? receipt->freed_bytes : std::map<std::string, int64_t>();
  }
  std::string Encode(const std::string& clip) {
    const auto encoded = client_->EncodeText({clip, "a red fox in snow"});
    EXPECT_TRUE(encoded.ok()) << encoded.status();
    return encoded.ok() ? encoded->conditioning.cross_attention.data : "";
  }
  void ExpectError(const absl::StatusOr<ApplyLoraResult>& result, absl::StatusCode code,
                   const std::string& message) {
    EXPECT_EQ(result.status().code(), code) << result.status();
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(message));
  }

  TempFolder folder_;
  std::string ckpt_name_;
  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
  std::map<std::string, int64_t> free_at_start_;
  LoadResult loaded_;
};

TEST_F(LoraTest, HandlesNameContent) {
  const ApplyLoraResult once = Applied(loaded_.model, loaded_.clip, "sd1/lora.safetensors");
  EXPECT_GT(once.patched, 80);
  EXPECT_TRUE(once.unmatched_keys.empty());
  const auto before = WeightBytes();
  const ApplyLoraResult again = Applied(loaded_.model, loaded_.clip, "sd1/lora.safetensors");
  EXPECT_EQ(again.model, once.model);
  EXPECT_EQ(again.clip, once.clip);
  EXPECT_EQ(WeightBytes(), before);  // it was there

  const ApplyLoraResult weaker = Applied(loaded_.model, loaded_.clip, "sd1/lora.safetensors", 0.7);
  EXPECT_NE(weaker.model, once.model);
  const ApplyLoraResult ab = Applied(once.model, "", "sd1/extras/loha.safetensors");
  const ApplyLoraResult b = Applied(loaded_.model, "", "sd1/extras/loha.safetensors");
  const ApplyLoraResult ba = Applied(b.model, "", "sd1/lora.safetensors");
  EXPECT_NE(ab.model, ba.model);  // DoRA would make the order count
  EXPECT_EQ(ab.clip, "");
}

TEST_F(LoraTest, ARequestsOwnAdaptersDrawWhatHandlesDrawAndGoWithIt) {
  InferSpec spec;
  spec.vae = loaded_.vae;
  spec.prompt = "a red fox";
  spec.width = spec.height = 64;
  spec.options.steps = 2;
  const auto one = Apply(loaded_.model, loaded_.clip, "sd1/lora.safetensors", 0.8, 0.5);
  ASSERT_TRUE(one.ok()) << one.status();
  const auto two = Apply(one->model, one->clip, "sd1/extras/loha.safetensors", -0.5, 0);
  ASSERT_TRUE(two.ok()) << two.status();
  spec.model = two->model;
  spec.clip = two->clip;
  const auto expected = client_->Infer(spec);
  ASSERT_TRUE(expected.ok()) << expected.status();
  UnloadSpec unload;
  unload.handles = {one->model, one->clip, two->model, two->clip};
  ASSERT_TRUE(client_->Unload(unload).ok());

  const auto bytes = WeightBytes();
  const auto handles = core_->ListModels().size();
  spec.model = loaded_.model;
  spec.clip = loaded_.clip;
  spec.loras = {{"sd1/lora.safetensors", 0.8, 0.5}, {"sd1/extras/loha.safetensors", -0.5, 0}};
  const auto drawn = client_->Infer(spec);
  ASSERT_TRUE(drawn.ok()) << drawn.status();
  EXPECT_EQ(drawn->png, expected->png);
  EXPECT_EQ(WeightBytes(), bytes);
  EXPECT_EQ(core_->ListModels().size(), handles);

  spec.loras[1].name = "sd1/extras/lohe.safetensors";
  const absl::Status missing = client_->Infer(spec).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("loha.safetensors"));
  spec.loras = {{"sd1/lora.safetensors", 0.8, 101}};
  EXPECT_EQ(client_->Infer(spec).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WeightBytes(), bytes);
}

TEST_F(LoraTest, WeightsAreSharedAndGoWithTheLastHandle) {
  const auto base = WeightBytes();
  EXPECT_EQ(StoredBytes(), base);
  const ApplyLoraResult one = Applied(loaded_.model, loaded_.clip, "sd1/lora.safetensors");
  const auto with_one = WeightBytes();
  // Only the adapter came, and to where it computes.
  EXPECT_GT(with_one.at("cuda:0"), base.at("cuda:0"));
  EXPECT_LT(with_one.at("cuda:0") - base.at("cuda:0"), 400'000);
  EXPECT_EQ(with_one.at("cuda:1"), base.at("cuda:1"));
  EXPECT_EQ(StoredBytes(), with_one);
  const ApplyLoraResult two = Applied(one.model, one.clip, "sd1/extras/loha.safetensors");
  const auto with_two = WeightBytes();
  EXPECT_EQ(StoredBytes(), with_two);

  // What lies below a stack stays while the stack is there.
  EXPECT_TRUE(Unload({one.model, one.clip, loaded_.model, loaded_.clip}).empty());
  EXPECT_EQ(WeightBytes(), with_two);
  EXPECT_EQ(StoredBytes(), with_two);
  EXPECT_FALSE(Encode(two.clip).empty());
  EXPECT_EQ(client_->EncodeText({one.clip, "a"}).status().code(), absl::StatusCode::kNotFound);

  const auto freed = Unload({two.model, two.clip, loaded_.vae});
  EXPECT_EQ(freed.at("cuda:0"), with_two.at("cuda:0"));
  EXPECT_EQ(freed.at("cuda:1"), with_two.at("cuda:1"));
  EXPECT_EQ(WeightBytes(), free_at_start_);
}

TEST_F(LoraTest, StrengthsOfOneAdapterShareItsTensors) {
  const std::string lora = "sd1/extras/lora_text.safetensors";
  const std::string strong = Applied("", loaded_.clip, lora, 0.8).clip;
  const auto with_one = WeightBytes();
  const std::string weak = Applied("", loaded_.clip, lora, 0.3).clip;
  EXPECT_EQ(WeightBytes(), with_one);
  EXPECT_EQ(StoredBytes(), with_one);
  const std::string weakly = Encode(weak);
  EXPECT_TRUE(Encode(strong) != weakly);
  // Twice in one stack, too.
  const std::string twice = Applied("", strong, lora, 0.3).clip;
  EXPECT_TRUE(Encode(twice) != weakly);
  EXPECT_EQ(WeightBytes(), with_one);
  EXPECT_EQ(StoredBytes(), with_one);

  EXPECT_TRUE(Unload({strong, twice}).empty());
  EXPECT_EQ(WeightBytes(), with_one);
  EXPECT_TRUE(Encode(weak) == weakly);
  EXPECT_GT(Unload({weak}).at("cuda:0"), 0);
  EXPECT_EQ(Applied("", loaded_.clip, lora, 0.8).clip, strong);
  EXPECT_EQ(WeightBytes(), with_one);
}

TEST_F(LoraTest, WeightsBelowAnAdapterAreNotLoadedAgain) {
  const std::string encoded = Encode(loaded_.clip);
  for (const bool eject : {false, true}) {
    SCOPED_TRACE(eject);
    const ApplyLoraResult lora = Applied(loaded_.model, loaded_.clip, "sd1/lora.safetensors");
    Unload({loaded_.model, loaded_.clip});
    int64_t bytes_read = -1;
    const LoadResult again = Load(eject, &bytes_read);
    EXPECT_EQ(bytes_read, 0);
    EXPECT_EQ(again.model, loaded_.model);
    ASSERT_EQ(again.placement.size(), 3u);
    EXPECT_GT(again.placement[0].devices.at(0).measured_bytes, 0);
    EXPECT_EQ(Encode(again.clip), encoded);
    EXPECT_EQ(StoredBytes(), WeightBytes());
    Unload({lora.model, lora.clip});
  }
  EXPECT_EQ(core_->ListModels().size(), 3u);
}

TEST_F(LoraTest, ALoadEjectsIdleStacks) {
  const ApplyLoraResult one = Applied(loaded_.model, loaded_.clip, "sd1/lora.safetensors");
  const LoadResult again = Load();
  EXPECT_EQ(again.model, loaded_.model);
  for (const ModelInfo& model : core_->ListModels()) {
    const bool of_stack = model.handle == one.model || model.handle == one.clip;
    EXPECT_EQ(model.state, of_stack ? "STORED" : "READY") << model.handle;
  }
  EXPECT_EQ(core_->ListModels().size(), 5u);
  EXPECT_EQ(StoredBytes(), WeightBytes());
}

TEST_F(LoraTest, ClipSkipAndLoraCommute) {
  const std::string name = "sd1/extras/lora_text.safetensors";
  const auto skipped = core_->SetClipSkip(loaded_.clip, -2);
  ASSERT_TRUE(skipped.ok());
  const ApplyLoraResult lora_of_skipped = Applied("", *skipped, name);
  const ApplyLoraResult lora = Applied("", loaded_.clip, name);
  const auto skip_of_lora = core_->SetClipSkip(lora.clip, -2);
  ASSERT_TRUE(skip_of_lora.ok()) << skip_of_lora.status();
  EXPECT_EQ(*skip_of_lora, lora_of_skipped.clip);

  const std::string plain = Encode(loaded_.clip), skip = Encode(*skipped),
                    patched = Encode(lora.clip), both = Encode(lora_of_skipped.clip);
  EXPECT_EQ(std::set<std::string>({plain, skip, patched, both}).size(), 4u);
  const auto unskipped = core_->SetClipSkip(lora_of_skipped.clip, -1);
  ASSERT_TRUE(unskipped.ok());
  EXPECT_EQ(Encode(*unskipped), patched);
}

TEST_F(LoraTest, WhatAnAdapterDoesNotChangeGetsAHandleOfItsOwn) {
  const ApplyLoraResult unet_only =
      Applied(loaded_.model, loaded_.clip, "sd1/extras/loha.safetensors");
  EXPECT_NE(unet_only.clip, loaded_.clip);
  EXPECT_EQ(Encode(unet_only.clip), Encode(loaded_.clip));
  Unload({loaded_.clip});
  EXPECT_FALSE(Encode(unet_only.clip).empty());
  const auto zero = Apply(loaded_.model, "", "sd1/extras/loha.safetensors", 0);
  ASSERT_TRUE(zero.ok()) << zero.status();
  EXPECT_NE(zero->model, loaded_.model);
  EXPECT_EQ(StoredBytes(), WeightBytes());
}

TEST_F(LoraTest, PicturesSayWhichAdaptersMadeThem) {
  const ApplyLoraResult one = Applied(loaded_.model, loaded_.clip, "sd1/lora.safetensors", 0.75);
  const ApplyLoraResult two = Applied(one.model, one.clip, "sd1/extras/lora_text.safetensors", 0.5);
  InferSpec spec;
  spec.model = two.model;
  spec.clip = two.clip;
  spec.vae = loaded_.vae;
  spec.prompt = "a fox";
  spec.width = spec.height = 64;
  spec.options.steps = 1;
  const auto result = client_->Infer(spec);
  ASSERT_TRUE(result.ok()) << result.status();
  const ImageText text = DecodePng(result->png[0]).value().text;
  ASSERT_EQ(text.size(), 2u);
  EXPECT_THAT(text[0].second,
              testing::StartsWith("a fox <lora:lora:0:0.75> <lora:lora_text:0.5:0>\n"));
  EXPECT_THAT(text[1].second, HasSubstr(R"("high_precision_loras":true)"));
  EXPECT_THAT(text[1].second,
              HasSubstr(R"("lora_name":"sd1/lora.safetensors","strength_model":0.75,)"
                        R"("strength_clip":0.0,"model":["1",0],)"));
  EXPECT_THAT(text[1].second,
              HasSubstr(R"("lora_name":"sd1/extras/lora_text.safetensors","strength_model":0.0,)"
                        R"("strength_clip":0.5,"model":["2",0],)"));
}

TEST_F(LoraTest, UnmatchedKeysAreReported) {
  const std::string layer = "lora_unet_input_blocks_1_1_proj_in";
  ASSERT_TRUE(WriteSafetensors(folder_.File("part.safetensors"),
                               {{layer + ".diff", DType::kF16, {32, 32, 1, 1}},
                                {"lora_unet_nowhere.diff", DType::kF16, {2, 2}},
                                {"junk", DType::kF16, {2, 2}}})
                  .ok());
  const ApplyLoraResult result = Applied(loaded_.model, loaded_.clip, "part.safetensors");
  EXPECT_EQ(result.patched, 1);
  EXPECT_EQ(result.unmatched_count, 2);
  EXPECT_THAT(result.unmatched_keys, testing::ElementsAre("lora_unet_nowhere.diff", "junk"));
}

TEST_F(LoraTest, BadRequestsSayWhatIsWrongAndLeaveNothing) {
  const auto before = WeightBytes();
  const std::string layer = "lora_unet_input_blocks_1_1_proj_in";
  ASSERT_TRUE(WriteSafetensors(folder_.File("shape.safetensors"),
                               {{layer + ".diff", DType::kF16, {31, 32, 1, 1}}})
                  .ok());
  // A sparse terabyte, which fits no device.
  ASSERT_TRUE(WriteSafetensors(folder_.File("rank.safetensors"),
                               {{layer + ".lora_up.weight", DType::kF16, {32, 1'000'000'000}},
                                {layer + ".lora_down.weight", DType::kF16, {1'000'000'000, 32}}})
                  .ok());
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  const std::string good = "sd1/lora.safetensors";
  ExpectError(Apply("", "", good), kInvalid, "model: give a model handle");
  ExpectError(Apply("model-0", "", good), absl::StatusCode::kNotFound, "model-0");
  ExpectError(Apply(loaded_.clip, "", good), kInvalid, "expected a model handle");
  ExpectError(Apply("", loaded_.model, good), kInvalid, "expected a clip handle");
  ExpectError(Apply(loaded_.model, "", good, 101), kInvalid, "strength_model: 101");
  ExpectError(Apply(loaded_.model, "", good, 1, std::nan("")), kInvalid, "strength_clip: nan");
  ExpectError(Apply(loaded_.model, "", "sd1/lora2.safetensors"), absl::StatusCode::kNotFound,
              "did you mean");
  ExpectError(Apply(loaded_.model, "", "../secret.safetensors"), kInvalid, "lora_name");
  ExpectError(Apply(loaded_.model, "", "sd1/expected.safetensors"), kInvalid, "is not an adapter");
  ExpectError(Apply(loaded_.model, loaded_.clip, "flux/lora.safetensors"), kInvalid,
              "it may be made for another family");
  ExpectError(Apply(loaded_.model, "", "sdxl/lora.safetensors"), kInvalid,
              "it may be made for another family than sd1");
  ExpectError(Apply(loaded_.model, loaded_.clip, "shape.safetensors"), kInvalid,
              "lora_name: shape.safetensors: 'lora_unet_input_blocks_1_1_proj_in.diff' has shape "
              "[31, 32, 1, 1], expected [32, 32, 1, 1]");
  ExpectError(Apply(loaded_.model, "", "rank.safetensors"), absl::StatusCode::kResourceExhausted,
              "lora_name: rank.safetensors: not enough device memory");
  EXPECT_EQ(WeightBytes(), before);
  EXPECT_EQ(core_->ListModels().size(), 3u);
}

}  // namespace
}  // namespace distorch
