// What happens when memory runs out: nothing that others would notice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;

// The demo's UNet has 11.1 MiB of weights in float32.
class MemoryPressureTest : public ::testing::Test {
 protected:
  void Start(const std::string& devices, const std::string& evict = "lru") {
    CoreOptions options;
    options.checkpoint_dirs = {DISTORCH_DEMO_DIR};
    options.simulate_devices = devices;
    options.compute_dtype = "fp32";
    options.evict = evict;
    auto core = DaemonCore::Create(options, nullptr);
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    client_ = std::make_unique<CoreClient>(core_.get());
  }
  // Several of them, alike but for their handles, with the UNet on cuda:0 and the rest elsewhere.
  static LoadSpec Spec(int which, int64_t lease_seconds = 0) {
    LoadSpec spec;
    spec.ckpt_name = "shapes-sd1.safetensors";
    spec.unet_compute_device = "cuda:0";
    spec.unet_virtual_vram_gb = 0;
    spec.unet_donor_device = which == 0 ? "cpu" : which == 1 ? "cuda:1" : "cuda:1,cpu";
    spec.clip_compute_device = "cpu";
    spec.vae_device = "cpu";
    spec.eject_models = false;
    spec.lease_seconds = lease_seconds;
    return spec;
  }
  LoadResult Load(int which, int64_t lease_seconds = 0) {
    const auto loaded = client_->Load(Spec(which, lease_seconds));
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *loaded : LoadResult();
  }
  absl::StatusOr<InferResult> Infer(const LoadResult& loaded, int side) {
    InferSpec spec;
    spec.model = loaded.model;
    spec.clip = loaded.clip;
    spec.vae = loaded.vae;
    spec.prompt = "a red circle";
    spec.width = spec.height = side;
    spec.options.steps = 1;
    return client_->Infer(spec);
  }
  std::string State(const std::string& handle) {
    for (const ModelInfo& model : core_->ListModels()) {
      if (model.handle == handle) return model.state;
    }
    return "";
  }
  int64_t FreeBytes() { return core_->ListDevices().front().free_bytes; }

  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
};

TEST_F(MemoryPressureTest, ARequestThatDoesNotFitEndsAloneAndLeavesNothing) {
  Start("cuda:0=13MiB,cuda:1=64MiB");
  const LoadResult loaded = Load(0);
  const auto small = Infer(loaded, 64);
  ASSERT_TRUE(small.ok()) << small.status();
  const int64_t before = FreeBytes();
  for (int i = 0; i < 3; ++i) {
    const absl::Status large = Infer(loaded, 1024).status();
    EXPECT_EQ(large.code(), absl::StatusCode::kResourceExhausted) << large;
    EXPECT_THAT(large.message(), HasSubstr("shapes-sd1.safetensors (unet)"));
    EXPECT_EQ(FreeBytes(), before);
  }
  const auto again = Infer(loaded, 64);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->png, small->png);
}

TEST_F(MemoryPressureTest, IdleModelsMakeRoomForARequest) {
  Start("cuda:0=36MiB,cuda:1=64MiB");
  const LoadResult idle = Load(0), leased = Load(1, 3600), used = Load(2);
  const auto drawn = Infer(used, 256);
  EXPECT_TRUE(drawn.ok()) << drawn.status();
  EXPECT_EQ(State(idle.model), "STORED");
  EXPECT_EQ(State(idle.vae), "READY");  // what lies elsewhere would not have helped
  EXPECT_EQ(State(leased.model), "READY");
  EXPECT_EQ(State(used.model), "READY");
}

TEST_F(MemoryPressureTest, IdleModelsMakeRoomForALoadTheOldestFirst) {
  Start("cuda:0=24MiB,cuda:1=64MiB");
  const LoadResult first = Load(0), second = Load(1);
  ASSERT_TRUE(Infer(first, 64).ok());  // the second is the oldest now
  const auto plan = core_->PlanCheckpoint(Spec(2));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->fits) << plan->reason;
  Load(2);
  EXPECT_EQ(State(first.model), "READY");
  EXPECT_EQ(State(second.model), "STORED");
}

TEST_F(MemoryPressureTest, WhatWasEvictedComesBackWhenItIsUsed) {
  Start("cuda:0=24MiB,cuda:1=64MiB");
  const LoadResult first = Load(0);
  const auto before = Infer(first, 64);
  ASSERT_TRUE(before.ok()) << before.status();
  Load(1);
  Load(2);
  EXPECT_EQ(State(first.model), "STORED");
  const auto again = Infer(first, 64);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->png, before->png);
}

TEST_F(MemoryPressureTest, EjectingFreesWhatIsIdleAndEndsNoHandle) {
  Start("cuda:0=64MiB,cuda:1=64MiB");
  const LoadResult idle = Load(0), leased = Load(1, 3600);
  const auto before = Infer(leased, 64);
  ASSERT_TRUE(before.ok()) << before.status();
  const auto skipped = core_->SetClipSkip(idle.clip, -2);
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  LoadSpec eject = Spec(0);
  eject.eject_models = std::nullopt;  // the node's default
  eject.unet_compute_device = "cuda:1";
  ASSERT_TRUE(client_->Load(eject).ok());
  EXPECT_EQ(core_->ListDevices().front().weights_bytes, 0);
  for (const std::string& handle : {idle.model, leased.model, *skipped})
    EXPECT_EQ(State(handle), "STORED") << handle;
  const auto after = Infer(leased, 64);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->png, before->png);
  EXPECT_TRUE(client_->EncodeText({*skipped, "a red circle"}).ok());
  UnloadSpec unload;
  unload.handles = {idle.model};
  EXPECT_TRUE(client_->Unload(unload).ok());
  EXPECT_EQ(State(idle.model), "");
}

TEST_F(MemoryPressureTest, NothingIsEvictedWhereThatIsForbidden) {
  Start("cuda:0=24MiB,cuda:1=64MiB", "never");
  const LoadResult first = Load(0), second = Load(1);
  const absl::Status status = client_->Load(Spec(2)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("held by"));
  EXPECT_EQ(State(first.model), "READY");
  EXPECT_EQ(State(second.model), "READY");
}

TEST_F(MemoryPressureTest, EqualLoadsAtOnceAreOne) {
  Start("cuda:0=24MiB,cuda:1=64MiB");
  constexpr int kLoads = 6;
  std::vector<absl::StatusOr<LoadResult>> results(kLoads, absl::UnknownError("not called"));
  absl::BlockingCounter done(kLoads);
  for (int i = 0; i < kLoads; ++i) {
    core_->LoadCheckpoint(Spec(0), std::make_shared<CancelToken>(), nullptr,
                          [&results, &done, i](absl::StatusOr<LoadResult> result) {
                            results[static_cast<size_t>(i)] = std::move(result);
                            done.DecrementCount();
                          });
  }
  done.Wait();
  for (const auto& result : results) {
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->model, results[0]->model);
  }
  EXPECT_EQ(core_->ListModels().size(), 3u);
}

}  // namespace
}  // namespace distorch
