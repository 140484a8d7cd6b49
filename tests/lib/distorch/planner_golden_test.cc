// The reference's own placements, block by block and byte by byte.
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "lib/distorch/allocation.h"
#include "lib/distorch/planner.h"
#include "tests/lib/distorch/placement_golden.h"
#include "tests/lib/distorch/plan_checker.h"

namespace distorch {
namespace {

const PlacementGolden& Golden() {
  static const auto* const golden =
      new PlacementGolden(ReadPlacementGolden(DISTORCH_GOLDEN_DIR "/placement.json"));
  return *golden;
}

std::vector<DeviceId> DevicesOf(const Plan& plan) {
  std::vector<DeviceId> devices;
  for (const int index : plan.assignment) devices.push_back(plan.devices[index]);
  return devices;
}

TEST(PlannerGoldenTest, EveryPlacementEqualsTheReferences) {
  ASSERT_EQ(Golden().cases.size(), 576u);
  for (const GoldenCase& golden : Golden().cases) {
    SCOPED_TRACE(golden.model + " " + golden.allocation);
    const GoldenModel& model = Golden().models.at(golden.model);
    const auto allocation = ParseAllocation(golden.fields, golden.devices);
    ASSERT_TRUE(allocation.ok()) << allocation.status();
    const PlannerOptions options{.mode = PlannerMode::kReference,
                                 .is_text_encoder = model.is_text_encoder};
    const Plan plan = MakePlan(model.blocks, *allocation, golden.devices, options);

    ASSERT_EQ(plan.assignment.size(), golden.assignment.size());
    EXPECT_EQ(DevicesOf(plan), golden.assignment);
    std::map<DeviceId, int64_t> bytes;
    for (size_t i = 0; i < plan.devices.size(); ++i) bytes[plan.devices[i]] = plan.bytes[i];
    EXPECT_EQ(bytes, golden.bytes);
    EXPECT_EQ(PlanViolation(model.blocks, *allocation, golden.devices, options, plan), "");
  }
}

TEST(PlannerGoldenTest, ExactPlansOfTheSameCasesKeepEveryQuota) {
  for (const GoldenCase& golden : Golden().cases) {
    const GoldenModel& model = Golden().models.at(golden.model);
    const auto allocation = ParseAllocation(golden.fields, golden.devices);
    ASSERT_TRUE(allocation.ok()) << allocation.status();
    const PlannerOptions options{.is_text_encoder = model.is_text_encoder};
    const Plan plan = MakePlan(model.blocks, *allocation, golden.devices, options);
    EXPECT_EQ(PlanViolation(model.blocks, *allocation, golden.devices, options, plan), "")
        << golden.model << " " << golden.allocation;
  }
}

}  // namespace
}  // namespace distorch
