// The allocation "auto" through the core: what it chooses, that it is what is loaded, and that an
// equal load is the same one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/lib/serving/placed_fixture.h"

namespace distorch {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class AutoLoadTest : public testing::TestWithParam<const char*> {
 protected:
  AutoLoadTest() : fixture_(GetParam()) {}

  void Start(int mib) {
    fixture_.Start(fixture_.Options(absl::StrCat("cuda:0=", mib, "MiB@10TFLOPS,cuda:1=", mib / 2,
                                                 "MiB@5TFLOPS,cpu=8GiB@500GFLOPS")));
  }
  CheckpointPlan Plan(const LoadSpec& spec) {
    const auto plan = fixture_.core().PlanCheckpoint(spec);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.ok() ? *plan : CheckpointPlan();
  }
  // Starts a core on the largest device, of a few, that does not hold the whole model.
  void StartWhereItDoesNotFit(const LoadSpec& spec) {
    for (int mib = 512; mib > 16; mib -= mib / 8) {
      Start(mib);
      if (!absl::StrContains(Plan(spec).placement[0].allocation, "all on compute")) return;
    }
    FAIL() << "it fits everywhere";
  }

  PlacedFixture fixture_;
};

TEST_P(AutoLoadTest, WhatFitsStaysOnCompute) {
  Start(4096);
  const LoadSpec spec = fixture_.Spec("auto", "");
  const CheckpointPlan plan = Plan(spec);
  EXPECT_TRUE(plan.fits) << plan.reason;
  EXPECT_GT(plan.predicted_step_seconds, 0);
  ASSERT_EQ(plan.placement[0].devices.size(), 1u);
  EXPECT_EQ(plan.placement[0].devices[0].device, "cuda:0");
  EXPECT_THAT(plan.placement[0].allocation, StartsWith("auto#cuda:0;"));
  EXPECT_THAT(plan.placement[0].allocation, EndsWith("gb (all on compute)"));
}

TEST_P(AutoLoadTest, SplitsWhatDoesNotFitAndLoadsItOnce) {
  for (const std::string execution : {"compute", "auto"}) {
    SCOPED_TRACE(execution);
    const LoadSpec spec = fixture_.Spec("auto", execution);
    StartWhereItDoesNotFit(spec);
    std::map<std::string, int64_t> free;
    for (const DeviceInfo& device : fixture_.core().ListDevices())
      free[device.name] = device.free_bytes;
    const CheckpointPlan plan = Plan(spec);
    EXPECT_TRUE(plan.fits) << plan.reason;
    ASSERT_GE(plan.placement[0].devices.size(), 2u);
    for (const DeviceBytes& device : plan.placement[0].devices)
      EXPECT_LE(device.planned_bytes, free[device.device]) << device.device;

    const LoadResult loaded = fixture_.Load(spec);
    EXPECT_EQ(loaded.predicted_step_seconds, plan.predicted_step_seconds);
    EXPECT_EQ(loaded.placement[0].allocation, plan.placement[0].allocation);
    const std::string denoised = fixture_.Denoise(loaded);

    const LoadResult again = fixture_.Load(spec);  // less is free now, but it is there
    EXPECT_EQ(again.model, loaded.model);

    Start(4096);
    EXPECT_EQ(fixture_.Denoise(fixture_.Load(fixture_.Spec("cuda:0,100%", ""))), denoised);
  }
}

TEST_P(AutoLoadTest, TextEncodersAreSplitAfterTheModel) {
  Start(4096);
  LoadSpec spec = fixture_.Spec("auto", "");
  spec.clip_compute_device = "cuda:0";
  spec.clip_expert_mode_allocations = "auto";
  const CheckpointPlan plan = Plan(spec);
  ASSERT_EQ(plan.placement.size(), 3u);
  EXPECT_EQ(plan.placement[1].component, "clip");
  EXPECT_THAT(plan.placement[1].allocation, EndsWith("(all on compute)"));
  StartWhereItDoesNotFit(spec);
  const LoadResult loaded = fixture_.Load(spec);
  EXPECT_FALSE(fixture_.Denoise(loaded).empty());
}

TEST_P(AutoLoadTest, ChecksTheOtherFieldsAllTheSame) {
  Start(4096);
  LoadSpec spec = fixture_.Spec("auto", "");
  spec.unet_compute_device = "cuda:7";
  const auto plan = fixture_.core().PlanCheckpoint(spec);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("unet_compute_device"));
}

class ErrorObserver : public Observer {
 public:
  void PredictionError(std::string_view family, double ratio) override {
    family_ = family;
    ratio_ = ratio;
  }
  const std::string& family() const { return family_; }
  double ratio() const { return ratio_; }

 private:
  std::string family_;
  double ratio_ = 0;
};

TEST_P(AutoLoadTest, StepsThatWereRunCorrectThePredictions) {
  ErrorObserver observer;
  // No device computes as fast as it is said to.
  fixture_.Start(fixture_.Options("cuda:0=4GiB@900PFLOPS,cpu=8GiB@900PFLOPS"), &observer);
  const LoadSpec spec = fixture_.Spec("auto", "");
  const LoadResult loaded = fixture_.Load(spec);
  fixture_.Sample(loaded, 2);
  EXPECT_EQ(observer.family(), "");  // too few to tell
  EXPECT_EQ(Plan(spec).predicted_step_seconds, loaded.predicted_step_seconds);
  fixture_.Sample(loaded, 4);
  EXPECT_EQ(observer.family(), GetParam());
  EXPECT_GT(observer.ratio(), 1);
  EXPECT_GT(Plan(spec).predicted_step_seconds, 2 * loaded.predicted_step_seconds);
  EXPECT_EQ(fixture_.Load(spec).model, loaded.model);  // decided is decided
}

INSTANTIATE_TEST_SUITE_P(Families, AutoLoadTest, testing::Values("sd1", "flux"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace distorch
