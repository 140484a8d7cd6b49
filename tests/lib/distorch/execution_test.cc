#include "lib/distorch/execution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const DeviceId kCuda0{"cuda", 0}, kCuda1{"cuda", 1}, kCuda2{"cuda", 2}, kCpu;

TEST(ExecutionTest, NamesAreReadBack) {
  for (Execution execution : {Execution::kCompute, Execution::kHolder, Execution::kAuto}) {
    const auto parsed = ParseExecution(ExecutionName(execution));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, execution);
  }
  EXPECT_THAT(std::string(ParseExecution("Holder").status().message()),
              HasSubstr("allowed: compute, holder, auto"));
}

TEST(HoldersOfTest, TheAcceleratorThatHoldsMost) {
  const std::vector<DeviceId> devices = {kCuda0, kCuda1, kCuda2, kCpu};
  const std::vector<UnitSpan> units = {{0, 2}, {2, 4}, {4, 6}, {6, 6}};
  const std::vector<int64_t> bytes = {60, 40, 60, 40, 50, 50, 1000};
  const std::vector<int> assignment = {0, 1, 1, 0, 0, 1, 1};
  EXPECT_THAT(HoldersOf(units, bytes, assignment, devices, 0), ElementsAre(0, 1, 0, 0));
  EXPECT_THAT(HoldersOf(units, bytes, assignment, devices, 1), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(HoldersOf(units, bytes, assignment, devices, 2), ElementsAre(0, 1, 0, 2));
}

TEST(HoldersOfTest, NeverOnTheCpuOrTheDiskUnlessItComputes) {
  const std::vector<DeviceId> devices = {kCuda0, kCuda1, kCpu, {"disk", 0}};
  const std::vector<UnitSpan> units = {{0, 2}, {2, 3}};
  const std::vector<int64_t> bytes = {90, 10, 100};
  const std::vector<int> assignment = {2, 1, 3};
  EXPECT_THAT(HoldersOf(units, bytes, assignment, devices, 0), ElementsAre(0, 0));
  EXPECT_THAT(HoldersOf(units, bytes, assignment, devices, 2), ElementsAre(2, 2));
}

}  // namespace
}  // namespace distorch
