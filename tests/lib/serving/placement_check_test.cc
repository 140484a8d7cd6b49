#include "lib/serving/placement_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace distorch {
namespace {

using ::testing::HasSubstr;

const DeviceId kCuda0{"cuda", 0}, kCuda1{"cuda", 1}, kCpu;

ComponentPlacement Planned() {
  ComponentPlacement placement;
  placement.component = "unet";
  placement.devices = {{"cuda:0", 1000, 0, 2}, {"cpu", 500, 0, 1}};
  return placement;
}

// The status that a load ends with whose weights were measured so.
absl::Status CheckOf(const BytesByDevice& measured, ComponentPlacement* placement) {
  *placement = Planned();
  return CheckPlanError(MeasurePlacement(measured, placement), *placement);
}

TEST(PlacementCheckTest, MeasuredBytesStandBesideThePlanned) {
  ComponentPlacement placement;
  EXPECT_TRUE(CheckOf({{kCuda0, 1000}, {kCpu, 500}}, &placement).ok());
  EXPECT_EQ(placement.devices[0].measured_bytes, 1000);
  EXPECT_EQ(placement.devices[1].measured_bytes, 500);
}

TEST(PlacementCheckTest, AHundredthIsAllowedAndNoMore) {
  ComponentPlacement placement;
  EXPECT_TRUE(CheckOf({{kCuda0, 1010}, {kCpu, 495}}, &placement).ok());
  EXPECT_EQ(CheckOf({{kCuda0, 1011}, {kCpu, 500}}, &placement).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(CheckOf({{kCuda0, 1000}, {kCpu, 494}}, &placement).code(), absl::StatusCode::kInternal);
}

TEST(PlacementCheckTest, ASplitThatDidNotHappenIsSaidInNumbers) {
  ComponentPlacement placement;
  const absl::Status status = CheckOf({{kCuda0, 1500}}, &placement);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(),
            "unet is not placed as planned; cuda:0: planned 1000, measured 1500 bytes; "
            "cpu: planned 500, measured 0 bytes");
}

TEST(PlacementCheckTest, WhatLiesWhereNothingWasPlannedCounts) {
  ComponentPlacement placement;
  const absl::Status status = CheckOf({{kCuda0, 1000}, {kCuda1, 1}, {kCpu, 500}}, &placement);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cuda:1: planned 0, measured 1 bytes"));
}

}  // namespace
}  // namespace distorch
