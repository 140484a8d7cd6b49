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
  for (Execution execution : {Execution::kCompute, Execution::kHolder}) {
    const auto parsed = ParseExecution(ExecutionName(execution));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, execution);
  }
  EXPECT_THAT(std::string(ParseExecution("Holder").status().message()),
              HasSubstr("allowed: compute, holder"));
}

TEST(HoldersOfTest, TheAcceleratorThatHoldsMost) {
  const std::vector<UnitSpan> units = {{0, 2}, {2, 4}, {4, 6}, {6, 6}};
  const std::vector<int64_t> bytes = {60, 40, 60, 40, 50, 50, 1000};
  const std::vector<DeviceId> device_of = {kCuda0, kCuda1, kCuda1, kCuda0, kCuda0, kCuda1, kCuda1};
  EXPECT_THAT(HoldersOf(units, bytes, device_of, kCuda0),
              ElementsAre(kCuda0, kCuda1, kCuda0, kCuda0));
  EXPECT_THAT(HoldersOf(units, bytes, device_of, kCuda1),
              ElementsAre(kCuda0, kCuda1, kCuda1, kCuda1));
  EXPECT_THAT(HoldersOf(units, bytes, device_of, kCuda2),
              ElementsAre(kCuda0, kCuda1, kCuda0, kCuda2));
}

TEST(HoldersOfTest, NeverOnTheCpuOrTheDiskUnlessItComputes) {
  const std::vector<UnitSpan> units = {{0, 2}, {2, 3}};
  const std::vector<int64_t> bytes = {90, 10, 100};
  const std::vector<DeviceId> device_of = {kCpu, kCuda1, DeviceId{"disk", 0}};
  EXPECT_THAT(HoldersOf(units, bytes, device_of, kCuda0), ElementsAre(kCuda0, kCuda0));
  EXPECT_THAT(HoldersOf(units, bytes, device_of, kCpu), ElementsAre(kCpu, kCpu));
}

}  // namespace
}  // namespace distorch
