#include "lib/distorch/step_predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace distorch {
namespace {

using ::testing::ElementsAre;

const DeviceId kCuda0{"cuda", 0}, kCuda1{"cuda", 1}, kCpu;
constexpr int64_t kMb = 1'000'000;

// Four units of one block: 100 MB and 10 ms on cuda:0 each; 2 MB pass from unit to unit.
StepModel FourUnits() {
  StepModel model;
  for (size_t i = 0; i < 4; ++i) {
    model.work.blocks.push_back({.flops = 1e9, .activation_bytes = 0});
    model.work.units.push_back({{i, i + 1}, {{static_cast<int>(i) - 1, 2 * kMb}}});
    model.bytes.push_back(100 * kMb);
  }
  model.work.output_bytes = 2 * kMb;
  model.devices = {kCuda0, kCuda1, kCpu};
  model.speeds = {{1e11}, {5e10}, {1e10}};
  for (const DeviceId& gpu : {kCuda0, kCuda1}) {
    model.links.Set(gpu, kCpu, {1e10, 0});
    model.links.Set(kCpu, gpu, {1e10, 0});
  }
  // Slower than through the host.
  model.links.Set(kCuda0, kCuda1, {1e9, 0});
  model.links.Set(kCuda1, kCuda0, {1e9, 0});
  return model;
}

TEST(StepPredictorTest, ResidentIsComputeAlone) {
  const StepPredictor predictor(FourUnits());
  const std::vector<int> assignment(4, 0), units(4, 0);
  EXPECT_NEAR(predictor.Seconds(assignment, units), 0.04, 1e-12);
}

TEST(StepPredictorTest, TheFactorIsOfComputingOnly) {
  StepModel model = FourUnits();
  model.compute_factor = 3;
  const StepPredictor predictor(model);
  const std::vector<int> units(4, 0);
  EXPECT_NEAR(predictor.Seconds(std::vector<int>(4, 0), units), 0.12, 1e-12);
  EXPECT_NEAR(predictor.Seconds(std::vector<int>{0, 0, 0, 2}, units), 0.12 + 0.01, 1e-12);
}

TEST(StepPredictorTest, MemoryBoundsWhatComputesLittle) {
  StepModel model = FourUnits();
  model.speeds[0].bytes_per_second = 2e9;
  const StepPredictor predictor(model);
  EXPECT_NEAR(predictor.Seconds(std::vector<int>(4, 0), std::vector<int>(4, 0)), 4 * 0.05, 1e-12);
}

TEST(StepPredictorTest, StagedWeightsOverlapWithinTheBudget) {
  StepModel model = FourUnits();
  const std::vector<int> assignment = {0, 2, 0, 2}, units(4, 0);
  EXPECT_NEAR(StepPredictor(model).Seconds(assignment, units), 0.04 + 2 * 0.01, 1e-12);
  model.staging_bytes = 400 * kMb;
  // The ring takes half of what lies elsewhere: one block, fetched while one that is here computes.
  model.bytes.assign(4, 100 * kMb / StagingRing::kAlignment * StagingRing::kAlignment);
  EXPECT_NEAR(StepPredictor(model).Seconds(assignment, units), 0.04, 1e-3);
}

TEST(StepPredictorTest, BytesTakeTheFasterOfTheDirectWayAndThatThroughTheHost) {
  const StepPredictor predictor(FourUnits());
  EXPECT_NEAR(predictor.Seconds(std::vector<int>{1, 0, 0, 0}, std::vector<int>(4, 0)),
              0.04 + 2 * 0.01, 1e-12);
  StepModel linked = FourUnits();
  linked.links.Set(kCuda1, kCuda0, {1e11, 0});
  EXPECT_NEAR(StepPredictor(linked).Seconds(std::vector<int>{1, 0, 0, 0}, std::vector<int>(4, 0)),
              0.04 + 0.001, 1e-12);
}

TEST(StepPredictorTest, WaysThroughTheHostShareItsLink) {
  // From cuda:1 and from the cpu the same bytes: 40 ms of one link, whatever the other carries.
  StepModel model = FourUnits();
  model.staging_bytes = 400 * kMb;
  model.work.blocks.assign(4, {.flops = 1e6});
  const double seconds =
      StepPredictor(model).Seconds(std::vector<int>{1, 2, 1, 2}, std::vector<int>(4, 0));
  EXPECT_GE(seconds, 0.04);
}

TEST(StepPredictorTest, TheDiskIsBehindTheHost) {
  StepModel model = FourUnits();
  model.devices.push_back(kDisk);
  model.speeds.push_back({1});
  model.links.Set(kDisk, kCpu, {2e9, 0});
  EXPECT_NEAR(StepPredictor(model).Seconds(std::vector<int>{3, 0, 0, 0}, std::vector<int>(4, 0)),
              0.04 + 0.05 + 0.01, 1e-12);
}

TEST(StepPredictorTest, UnitsElsewhereMoveActivationsThereAndBack) {
  const StepPredictor predictor(FourUnits());
  const std::vector<int> assignment = {0, 1, 1, 0};
  // cuda:1 takes 20 ms a unit; 2 MB cross two links there and two back.
  EXPECT_NEAR(predictor.Seconds(assignment, std::vector<int>{0, 1, 1, 0}), 0.02 + 0.04 + 4 * 0.0002,
              1e-12);
  EXPECT_NEAR(predictor.Seconds(std::vector<int>{0, 0, 0, 1}, std::vector<int>{0, 0, 0, 1}),
              0.03 + 0.02 + 4 * 0.0002, 1e-12);  // the output comes back
}

TEST(StepPredictorTest, AutoTakesTheHolderWhereTransfersAreSlowAndComputeWhereTheyHide) {
  StepModel model = FourUnits();
  const std::vector<int> assignment = {0, 1, 1, 0};
  EXPECT_THAT(StepPredictor(model).PlaceUnits(Execution::kCompute, assignment).devices,
              ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(StepPredictor(model).PlaceUnits(Execution::kHolder, assignment).devices,
              ElementsAre(0, 1, 1, 0));
  // 60.8 ms by the holders, 80 ms when 20 ms are waited for twice.
  EXPECT_THAT(StepPredictor(model).PlaceUnits(Execution::kAuto, assignment).devices,
              ElementsAre(0, 1, 1, 0));
  model.staging_bytes = 400 * kMb;
  model.links.Set(kCuda1, kCuda0, {1e12, 0});
  model.links.Set(kCuda0, kCuda1, {1e12, 0});
  EXPECT_THAT(StepPredictor(model).PlaceUnits(Execution::kAuto, assignment).devices,
              ElementsAre(0, 0, 0, 0));
  model.speeds[1].flops_per_second = 1e13;
  EXPECT_THAT(StepPredictor(model).PlaceUnits(Execution::kAuto, assignment).devices,
              ElementsAre(1, 1, 1, 1));  // it fetches the others' weights in no time
}

TEST(StepPredictorTest, AutoIsNeverPredictedSlowerThanEitherMode) {
  for (const double rate : {1e9, 1e10, 1e11, 1e12}) {
    for (const double flops : {1e10, 1e11, 1e12}) {
      StepModel model = FourUnits();
      model.links.Set(kCuda1, kCuda0, {rate, 1e-5});
      model.links.Set(kCuda0, kCuda1, {rate, 1e-5});
      model.speeds[1] = {flops};
      model.staging_bytes = 200 * kMb;
      const StepPredictor predictor(model);
      for (const std::vector<int>& assignment :
           {std::vector<int>{0, 1, 0, 1}, std::vector<int>{1, 1, 2, 2},
            std::vector<int>{2, 0, 1, 1}}) {
        const auto seconds = [&](Execution execution) {
          const UnitPlan plan = predictor.PlaceUnits(execution, assignment);
          EXPECT_EQ(plan.step_seconds, predictor.Seconds(assignment, plan.devices));
          return plan.step_seconds;
        };
        EXPECT_LE(seconds(Execution::kAuto), seconds(Execution::kCompute));
        EXPECT_LE(seconds(Execution::kAuto), seconds(Execution::kHolder));
      }
    }
  }
}

}  // namespace
}  // namespace distorch
