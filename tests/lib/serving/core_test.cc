// The core as the server uses it: loads, handles, errors that leave nothing behind, cancellation,
// flat memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"
#include "tests/support/torch_archive_writer.h"

namespace distorch {
namespace {

using testing::HasSubstr;

constexpr char kDemo[] = "shapes-sd1.safetensors";

const std::string& OddFiles() {
  static const auto* const folder = [] {
    auto* temp = new TempFolder();
    std::ofstream(temp->path() + "/notes.safetensors") << "not a checkpoint";
    return temp;
  }();
  return folder->path();
}

DaemonCore& Core() {
  static DaemonCore* const core = [] {
    CoreOptions options;
    options.checkpoint_dirs = {DISTORCH_DEMO_DIR, OddFiles()};
    options.simulate_devices = "cuda:0=1GiB,cuda:1=256MiB,cuda:2=1MiB,cpu=8GiB";
    options.compute_dtype = "fp32";
    auto created = DaemonCore::Create(options, nullptr);
    EXPECT_TRUE(created.ok()) << created.status();
    return created->release();
  }();
  return *core;
}

// What simulated devices hold: nothing may stay there.
int64_t AcceleratorBytes() {
  int64_t used = 0;
  for (const DeviceInfo& device : Core().ListDevices()) {
    if (device.name != "cpu") used += device.total_bytes - device.free_bytes;
    used += device.weights_bytes + device.reserved_bytes + device.staging_bytes;
  }
  return used;
}

LoadSpec DemoSpec() {
  LoadSpec spec;
  spec.ckpt_name = kDemo;
  spec.unet_compute_device = "cuda:0";
  spec.unet_expert_mode_allocations = "cuda:0,50%;cuda:1,30%;cpu,20%";
  spec.vae_device = "cuda:1";
  return spec;
}

class CoreTest : public testing::Test {
 protected:
  void TearDown() override {
    UnloadSpec all;
    all.all = all.force = true;
    EXPECT_TRUE(client_.Unload(all).ok());
    EXPECT_EQ(AcceleratorBytes(), 0);
  }

  LoadResult LoadDemo() {
    auto loaded = client_.Load(DemoSpec());
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *loaded : LoadResult();
  }
  InferSpec SmallInfer(const LoadResult& loaded) {
    InferSpec spec;
    spec.model = loaded.model;
    spec.clip = loaded.clip;
    spec.vae = loaded.vae;
    spec.prompt = "a red circle";
    spec.width = spec.height = 64;
    spec.options.steps = 2;
    return spec;
  }
  void ExpectLoadError(const LoadSpec& spec, absl::StatusCode code, const std::string& text) {
    const auto loaded = client_.Load(spec);
    EXPECT_EQ(loaded.status().code(), code) << loaded.status();
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr(text));
    EXPECT_TRUE(Core().ListModels().empty());
    EXPECT_EQ(AcceleratorBytes(), 0);
  }

  CoreClient client_{&Core()};
};

TEST_F(CoreTest, MeasuresWhatItPlannedAndFreesWhatItMeasured) {
  const auto plan = Core().PlanCheckpoint(DemoSpec());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->fits);
  const LoadResult loaded = LoadDemo();
  ASSERT_EQ(loaded.placement.size(), 3u);
  std::map<std::string, int64_t> measured;
  for (size_t i = 0; i < loaded.placement.size(); ++i) {
    const ComponentPlacement& component = loaded.placement[i];
    ASSERT_EQ(component.devices.size(), plan->placement[i].devices.size());
    for (size_t d = 0; d < component.devices.size(); ++d) {
      EXPECT_EQ(component.devices[d].planned_bytes, plan->placement[i].devices[d].planned_bytes);
      EXPECT_EQ(component.devices[d].planned_bytes, component.devices[d].measured_bytes);
      measured[component.devices[d].device] += component.devices[d].measured_bytes;
    }
  }
  // The simulated allocators count for themselves.
  for (const DeviceInfo& device : Core().ListDevices()) {
    if (device.name != "cpu") {
      EXPECT_EQ(device.total_bytes - device.free_bytes - device.staging_bytes,
                measured[device.name])
          << device.name;
    }
    EXPECT_EQ(device.weights_bytes, measured[device.name]) << device.name;
  }
  const auto receipt = client_.UnloadAll();
  ASSERT_TRUE(receipt.ok());
  EXPECT_EQ(receipt->handles_closed, 3);
  std::erase_if(measured, [](const auto& entry) { return entry.second == 0; });
  EXPECT_EQ(receipt->freed_bytes, measured);
}

TEST_F(CoreTest, LoadsOnceWhatIsLoadedAlready) {
  const LoadResult first = LoadDemo();
  const int64_t bytes = AcceleratorBytes();
  const LoadResult second = LoadDemo();
  EXPECT_EQ(first.model, second.model);
  EXPECT_EQ(first.clip, second.clip);
  EXPECT_EQ(first.vae, second.vae);
  EXPECT_EQ(AcceleratorBytes(), bytes);
}

TEST_F(CoreTest, OtherFieldsMakeAnotherModelAndEjectTheIdleOne) {
  const LoadResult first = LoadDemo();
  LoadSpec spec = DemoSpec();
  spec.unet_expert_mode_allocations = "cuda:0,100%";
  const auto second = client_.Load(spec);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE(first.model, second->model);
  EXPECT_EQ(first.vae, second->vae);  // its fields did not change
  std::map<std::string, std::string> states;
  for (const ModelInfo& model : Core().ListModels()) states[model.handle] = model.state;
  EXPECT_EQ(states[first.model], "STORED");
  EXPECT_EQ(states[second->model], "READY");
  EXPECT_TRUE(client_.Infer(SmallInfer(first)).ok());  // its handle has not ended
}

TEST_F(CoreTest, InfersAndIsDeterministic) {
  const LoadResult loaded = LoadDemo();
  const auto first = client_.Infer(SmallInfer(loaded));
  const auto second = client_.Infer(SmallInfer(loaded));
  ASSERT_TRUE(first.ok() && second.ok()) << first.status();
  ASSERT_EQ(first->png.size(), 1u);
  EXPECT_EQ(first->png, second->png);
  EXPECT_THAT(first->png[0], HasSubstr("a red circle"));
}

TEST_F(CoreTest, NamesNearCheckpointsForAnUnknownOne) {
  LoadSpec spec;
  spec.ckpt_name = "shapes-sd.safetensors";
  ExpectLoadError(spec, absl::StatusCode::kNotFound, kDemo);
}

TEST_F(CoreTest, RefusesWhatIsNoCheckpoint) {
  LoadSpec spec;
  spec.ckpt_name = "notes.safetensors";
  ExpectLoadError(spec, absl::StatusCode::kInvalidArgument, "notes.safetensors");
}

TEST_F(CoreTest, RefusesALoraAndAnUnknownLayout) {
  ASSERT_TRUE(WriteSafetensors(OddFiles() + "/lora.safetensors",
                               {{"lora_unet_down.lora_down.weight", DType::kF32, {1}, {}}})
                  .ok());
  ASSERT_TRUE(WriteSafetensors(OddFiles() + "/other.safetensors",
                               {{"layers.0.weight", DType::kF32, {1}, {}}})
                  .ok());
  LoadSpec spec;
  spec.ckpt_name = "lora.safetensors";
  ExpectLoadError(spec, absl::StatusCode::kInvalidArgument, "LoRA");
  spec.ckpt_name = "other.safetensors";
  ExpectLoadError(spec, absl::StatusCode::kInvalidArgument, "layers");
}

// The readers' own tests have every malformed case: here, that nothing runs and nothing stays.
TEST_F(CoreTest, RefusesFilesThatWouldRunSomethingOrAreCutShort) {
  const std::string mark = OddFiles() + "/ran";
  const std::string call = pickle::Whole(
      pickle::Call(pickle::Global("posix", "system"), {pickle::Text("touch " + mark)}));
  std::ofstream(OddFiles() + "/evil.ckpt") << ZipBytes(ArchiveMembers(call, {}));
  const std::string gguf =
      GgufBytes({GgufText("general.architecture", "sd1")},
                {{"input_blocks.0.0.weight", 0, {4, 4}, std::string(64, 'x')}});
  std::ofstream(OddFiles() + "/cut.gguf") << gguf.substr(0, gguf.size() - 1);
  LoadSpec spec;
  spec.ckpt_name = "evil.ckpt";
  ExpectLoadError(spec, absl::StatusCode::kInvalidArgument, "posix.system");
  spec.ckpt_name = "cut.gguf";
  ExpectLoadError(spec, absl::StatusCode::kInvalidArgument, "truncated");
  EXPECT_FALSE(std::filesystem::exists(mark));
  EXPECT_FALSE(LoadDemo().model.empty());
}

TEST_F(CoreTest, NamesTheFieldThatIsWrong) {
  const auto with = [](auto change) {
    LoadSpec spec = DemoSpec();
    change(spec);
    return spec;
  };
  ExpectLoadError(with([](LoadSpec& s) { s.unet_compute_device = "cuda:7"; }),
                  absl::StatusCode::kInvalidArgument, "unet_compute_device");
  ExpectLoadError(with([](LoadSpec& s) { s.unet_expert_mode_allocations = "cuda:0,7x"; }),
                  absl::StatusCode::kInvalidArgument, "cuda:0,7x");
  ExpectLoadError(with([](LoadSpec& s) { s.clip_virtual_vram_gb = -1; }),
                  absl::StatusCode::kInvalidArgument, "clip_virtual_vram_gb");
  ExpectLoadError(with([](LoadSpec& s) { s.vae_device = "nowhere"; }),
                  absl::StatusCode::kInvalidArgument, "vae_device");
  ExpectLoadError(with([](LoadSpec& s) { s.weight_dtype = "fp4"; }),
                  absl::StatusCode::kInvalidArgument, "weight_dtype");
  ExpectLoadError(with([](LoadSpec& s) { s.lease_seconds = -1; }),
                  absl::StatusCode::kInvalidArgument, "lease_seconds");
  ExpectLoadError(with([](LoadSpec& s) { s.ckpt_name = "../etc/passwd"; }),
                  absl::StatusCode::kInvalidArgument, "ckpt_name");
}

TEST_F(CoreTest, SaysWhoHoldsWhatWhenItDoesNotFit) {
  LoadSpec spec = DemoSpec();
  spec.vae_device = "cuda:2";
  const auto plan = Core().PlanCheckpoint(spec);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE(plan->fits);
  EXPECT_THAT(plan->reason, HasSubstr("cuda:2"));
  ExpectLoadError(spec, absl::StatusCode::kResourceExhausted, "cuda:2");
}

TEST_F(CoreTest, ACancelledLoadLeavesNothing) {
  auto cancel = std::make_shared<CancelToken>();
  const auto loaded = client_.Load(DemoSpec(), cancel, [&](const LoadProgress& progress) {
    if (progress.phase == "weights" && progress.bytes_done > 0)
      cancel->Cancel(absl::CancelledError("by the test"));
  });
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kCancelled) << loaded.status();
  EXPECT_TRUE(Core().ListModels().empty());
  EXPECT_EQ(AcceleratorBytes(), 0);
}

TEST_F(CoreTest, StopsBetweenStepsWhenCancelled) {
  InferSpec spec = SmallInfer(LoadDemo());
  spec.options.steps = 1000;
  auto cancel = std::make_shared<CancelToken>();
  std::atomic<int> last_step = 0;
  InferCallbacks callbacks;
  callbacks.progress = [&](const StepProgress& progress) {
    last_step = progress.step;
    if (progress.step == 2) cancel->Cancel(absl::CancelledError("by the test"));
  };
  EXPECT_EQ(client_.Infer(spec, cancel, callbacks).status().code(), absl::StatusCode::kCancelled);
  EXPECT_LE(last_step, 3);
}

TEST_F(CoreTest, ForcedUnloadAbortsWhatRuns) {
  const LoadResult loaded = LoadDemo();
  InferSpec spec = SmallInfer(loaded);
  spec.options.steps = 1000;
  absl::Notification running;
  InferCallbacks callbacks;
  callbacks.progress = [&](const StepProgress& progress) {
    if (progress.step == 1) running.Notify();
  };
  absl::Notification ended;
  absl::Status status;
  Core().Infer(spec, std::make_shared<CancelToken>(), callbacks,
               [&](absl::StatusOr<InferResult> result) {
                 status = result.status();
                 ended.Notify();
               });
  running.WaitForNotification();
  UnloadSpec unload;
  unload.handles = {loaded.model};
  EXPECT_EQ(client_.Unload(unload).status().code(), absl::StatusCode::kFailedPrecondition);
  unload.force = true;
  EXPECT_TRUE(client_.Unload(unload).ok());
  ended.WaitForNotification();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
}

TEST_F(CoreTest, ClipSkipSharesTheEncoderAndOutlivesIt) {
  const LoadResult loaded = LoadDemo();
  const auto skipped = Core().SetClipSkip(loaded.clip, -2);
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  const auto sharing = [&] {
    const std::vector<ModelInfo> models = Core().ListModels();
    return std::count_if(models.begin(), models.end(),
                         [](const ModelInfo& model) { return model.unshared_bytes.empty(); });
  };
  EXPECT_EQ(sharing(), 1);
  UnloadSpec unload;
  unload.handles = {loaded.clip};
  const auto receipt = client_.Unload(unload);
  ASSERT_TRUE(receipt.ok());
  EXPECT_TRUE(receipt->freed_bytes.empty());
  EXPECT_EQ(sharing(), 0);
  EXPECT_TRUE(client_.EncodeText({*skipped, "a"}).ok());
  EXPECT_EQ(client_.EncodeText({loaded.clip, "a"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Core().SetClipSkip(*skipped, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CoreTest, NamesTheSamplingFieldThatIsWrong) {
  const LoadResult loaded = LoadDemo();
  const auto expect = [&](const std::string& field, auto change) {
    InferSpec spec = SmallInfer(loaded);
    change(spec);
    const absl::Status status = client_.Infer(spec).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  };
  expect("width", [](InferSpec& s) { s.width = 65; });
  expect("height", [](InferSpec& s) { s.height = 8; });
  expect("batch_size", [](InferSpec& s) { s.batch_size = 1000; });
  expect("sampler_name", [](InferSpec& s) { s.options.sampler_name = "eulerr"; });
  expect("scheduler", [](InferSpec& s) { s.options.scheduler = "none"; });
  expect("steps", [](InferSpec& s) { s.options.steps = 0; });
  expect("denoise", [](InferSpec& s) { s.options.denoise = 1.5; });
  expect("cfg", [](InferSpec& s) { s.options.cfg = -1; });
  expect("init_image", [](InferSpec& s) { s.init_image = "no picture"; });
  expect("image_format", [](InferSpec& s) { s.image_format = "bmp"; });
  expect("clip", [&](InferSpec& s) { s.clip = loaded.vae; });
}

// Resident memory of this process, in bytes.
int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST_F(CoreTest, HundredLoadsLeaveMemoryFlat) {
  constexpr int kWarmUp = 5, kCycles = 100;
  constexpr int64_t kAllowedGrowth =
      16 << 20;  // far below one checkpoint's 26 MB, let alone a hundred
  int64_t before = 0;
  for (int i = 0; i < kWarmUp + kCycles; ++i) {
    if (i == kWarmUp) before = ResidentBytes();
    LoadDemo();
    ASSERT_TRUE(client_.UnloadAll().ok());
  }
  EXPECT_LT(ResidentBytes() - before, kAllowedGrowth);
}

}  // namespace
}  // namespace distorch
