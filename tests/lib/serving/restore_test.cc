// Handles over restarts: one core after another on one --state_dir.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_checkpoint.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr char kCheckpoint[] = "a.safetensors";
constexpr char kLora[] = "lora.safetensors";

class RestoreTest : public ::testing::Test {
 protected:
  RestoreTest() {
    const auto path = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, "sd1", DISTORCH_GOLDEN_CACHE);
    EXPECT_TRUE(path.ok()) << path.status();
    std::filesystem::copy_file(*path, folder_.File(std::string("ckpt/") + kCheckpoint));
    std::filesystem::copy_file(std::string(DISTORCH_GOLDEN_DIR) + "/sd1/" + kLora,
                               folder_.File(std::string("lora/") + kLora));
    Restart();
  }

  void Restart(const std::string& restore = "lazy") {
    client_.reset();
    core_.reset();
    CoreOptions options;
    options.checkpoint_dirs = {folder_.path() + "/ckpt"};
    options.lora_dirs = {folder_.path() + "/lora"};
    options.simulate_devices = "cuda:0=1GiB,cuda:1=1GiB";
    options.compute_dtype = "fp32";
    options.state_dir = folder_.path() + "/state";
    options.restore = restore;
    auto core = DaemonCore::Create(options, nullptr);
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    client_ = std::make_unique<CoreClient>(core_.get());
  }
  LoadResult Load(const std::string& allocation = "cuda:0,60%;cuda:1,40%", bool eject = true) {
    LoadSpec spec;
    spec.ckpt_name = kCheckpoint;
    spec.unet_compute_device = spec.clip_compute_device = spec.vae_device = "cuda:0";
    spec.unet_expert_mode_allocations = allocation;
    spec.eject_models = eject;
    const auto loaded = client_->Load(spec);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *loaded : LoadResult();
  }
  std::map<std::string, std::string> States() {
    std::map<std::string, std::string> states;
    for (const ModelInfo& model : core_->ListModels()) states[model.handle] = model.state;
    return states;
  }
  int64_t WeightBytes() {
    int64_t bytes = 0;
    for (const DeviceInfo& device : core_->ListDevices()) bytes += device.weights_bytes;
    return bytes;
  }
  absl::StatusOr<InferResult> Infer(const std::string& model, const std::string& clip,
                                    const std::string& vae,
                                    std::vector<std::string>* phases = nullptr) {
    InferSpec spec;
    spec.model = model;
    spec.clip = clip;
    spec.vae = vae;
    spec.prompt = "a red fox";
    spec.width = spec.height = 64;
    spec.options.steps = 2;
    InferCallbacks callbacks;
    if (phases != nullptr)
      callbacks.phase = [phases](std::string_view phase) { phases->emplace_back(phase); };
    return client_->Infer(spec, std::make_shared<CancelToken>(), callbacks);
  }

  TempFolder folder_;
  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
};

TEST_F(RestoreTest, TheFirstRequestLoadsWhatItUses) {
  const LoadResult loaded = Load();
  const auto before = Infer(loaded.model, loaded.clip, loaded.vae);
  ASSERT_TRUE(before.ok()) << before.status();
  const int64_t bytes = WeightBytes();

  Restart();
  EXPECT_THAT(States(),
              UnorderedElementsAre(Pair(loaded.model, "STORED"), Pair(loaded.clip, "STORED"),
                                   Pair(loaded.vae, "STORED")));
  EXPECT_EQ(WeightBytes(), 0);
  const auto encoded = client_->EncodeText({loaded.clip, "a red fox"});
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_EQ(States()[loaded.clip], "READY");
  EXPECT_EQ(States()[loaded.model], "STORED");
  std::vector<std::string> phases;
  const auto after = Infer(loaded.model, loaded.clip, loaded.vae, &phases);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->png, before->png);
  EXPECT_THAT(phases, ElementsAre("load", "queue", "text", "sample", "decode"));
  EXPECT_EQ(WeightBytes(), bytes);
  const LoadResult again = Load();
  EXPECT_EQ(again.model, loaded.model);
}

TEST_F(RestoreTest, AdaptersAndClipSkipsComeBackWithoutWhatWasUnloaded) {
  const LoadResult loaded = Load();
  const auto skipped = core_->SetClipSkip(loaded.clip, -2);
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  const auto one = client_->ApplyLora({loaded.model, *skipped, kLora, 0.8, 0.8});
  ASSERT_TRUE(one.ok()) << one.status();
  const auto two = client_->ApplyLora({one->model, one->clip, kLora, -0.3, 0});
  ASSERT_TRUE(two.ok()) << two.status();
  const auto before = Infer(two->model, two->clip, loaded.vae);
  ASSERT_TRUE(before.ok()) << before.status();
  UnloadSpec unload;
  unload.handles = {loaded.model, loaded.clip, *skipped, one->model};
  ASSERT_TRUE(client_->Unload(unload).ok());

  Restart();
  // Of a handle that is not loaded there can be a clip skip, too.
  const auto third = core_->SetClipSkip(two->clip, -3);
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_EQ(States()[*third], "STORED");
  const auto after = Infer(two->model, two->clip, loaded.vae);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->png, before->png);
  EXPECT_TRUE(client_->EncodeText({*third, "a"}).ok());
  EXPECT_THAT(States(), UnorderedElementsAre(Pair(two->model, "READY"), Pair(two->clip, "READY"),
                                             Pair(one->clip, "READY"), Pair(*third, "READY"),
                                             Pair(loaded.vae, "READY")));
}

TEST_F(RestoreTest, WhatWasDecidedStaysDecided) {
  const LoadResult first = Load("auto");
  Load("cuda:0,100%", /*eject=*/false);  // leaves less free
  Restart();
  Load("cuda:1,100%", /*eject=*/false);
  const auto drawn = Infer(first.model, first.clip, first.vae);
  EXPECT_TRUE(drawn.ok()) << drawn.status();
}

TEST_F(RestoreTest, UnloadedHandlesAreForgottenAndEjectedOnesAreNot) {
  const LoadResult first = Load();
  const LoadResult second = Load("cuda:0,50%;cuda:1,50%");
  ASSERT_EQ(second.vae, first.vae);
  UnloadSpec unload;
  unload.handles = {second.vae};
  ASSERT_TRUE(client_->Unload(unload).ok());
  Restart();
  EXPECT_THAT(States(),
              UnorderedElementsAre(Pair(first.model, "STORED"), Pair(second.model, "STORED"),
                                   Pair(second.clip, "STORED")));
  EXPECT_EQ(client_->EncodeText({first.vae, "a"}).status().code(), absl::StatusCode::kNotFound);
  Restart("none");
  EXPECT_THAT(States(), IsEmpty());
  Restart();
  EXPECT_THAT(States(), IsEmpty());
}

TEST_F(RestoreTest, EagerlyAllIsLoadedFromTheStart) {
  const LoadResult loaded = Load();
  Restart("eager");
  Load();  // waits behind the restoring
  for (const auto& [handle, state] : States()) EXPECT_EQ(state, "READY") << handle;
  EXPECT_TRUE(Infer(loaded.model, loaded.clip, loaded.vae).ok());
}

TEST_F(RestoreTest, AnotherFileUnderTheNameIsNamed) {
  const LoadResult loaded = Load();
  const auto adapted = client_->ApplyLora({loaded.model, "", kLora, 0.8, 0.8});
  ASSERT_TRUE(adapted.ok());
  Restart();
  const std::string lora = folder_.File(std::string("lora/") + kLora);
  std::filesystem::remove(lora);
  EXPECT_EQ(Infer(adapted->model, loaded.clip, loaded.vae).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_TRUE(Infer(loaded.model, loaded.clip, loaded.vae).ok());  // the others are not concerned

  const std::string checkpoint = folder_.File(std::string("ckpt/") + kCheckpoint);
  const auto other = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, "sd2", DISTORCH_GOLDEN_CACHE);
  ASSERT_TRUE(other.ok());
  Restart();
  std::filesystem::copy_file(*other, checkpoint, std::filesystem::copy_options::overwrite_existing);
  const absl::Status changed = Infer(loaded.model, loaded.clip, loaded.vae).status();
  EXPECT_EQ(changed.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(changed.message(), HasSubstr(kCheckpoint));
  EXPECT_EQ(States()[loaded.model], "STORED");
  EXPECT_EQ(WeightBytes(), 0);
}

}  // namespace
}  // namespace distorch
