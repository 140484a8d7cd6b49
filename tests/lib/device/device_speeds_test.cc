#include "lib/device/device_speeds.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace distorch {
namespace {

const DeviceId kCuda0{"cuda", 0}, kCuda1{"cuda", 1}, kCpu;

TEST(DeviceSpeedsTest, GivenSpeedsHoldAndTheCpuComputesForTheOthers) {
  auto devices = DeviceManager::Create(
      {.simulate_devices = "cuda:0=1MiB@40TFLOPS,cuda:1=1MiB", .compute_dtype = "fp32"});
  ASSERT_TRUE(devices.ok()) << devices.status();
  DeviceSpeeds speeds(**devices);
  const auto given = speeds.Of(kCuda0, c10::kFloat);
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->flops_per_second, 4e13);
  EXPECT_EQ(given->bytes_per_second, std::numeric_limits<double>::infinity());

  const auto cpu = speeds.Of(kCpu, c10::kFloat), other = speeds.Of(kCuda1, c10::kFloat);
  ASSERT_TRUE(cpu.ok() && other.ok());
  EXPECT_GT(cpu->flops_per_second, 1e8);
  EXPECT_LT(cpu->flops_per_second, 1e15);
  EXPECT_GT(cpu->bytes_per_second, 1e7);
  EXPECT_EQ(other->flops_per_second, cpu->flops_per_second);
  EXPECT_EQ(speeds.Of(kCpu, c10::kFloat)->bytes_per_second, cpu->bytes_per_second);
  EXPECT_EQ(speeds.measured(), 1u);
}

TEST(DeviceSpeedsTest, WhatModelsMayAskForIsMeasuredAtOnce) {
  auto devices = DeviceManager::Create(
      {.simulate_devices = "cuda:0=1MiB@40TFLOPS,cuda:1=1MiB", .compute_dtype = "fp32"});
  ASSERT_TRUE(devices.ok()) << devices.status();
  DeviceSpeeds speeds(**devices);
  ASSERT_TRUE(speeds.MeasureAll().ok());
  const std::size_t measured = speeds.measured();
  EXPECT_GE(measured, 1u);
  for (const DeviceId& device : {kCuda0, kCuda1, kCpu}) {
    EXPECT_TRUE(speeds.Of(device, (*devices)->ComputeDtype(device, c10::kHalf)).ok());
  }
  EXPECT_EQ(speeds.measured(), measured);
}

// A CPU may have no instructions for halves, and multiplies them a hundred times slower then.
TEST(ProductFlopsTest, TheSlowerItIsTheSmallerTheProductsThatMeasureIt) {
  struct Case {
    double flops;
    std::vector<int64_t> sides;
  };
  for (const auto& [flops, expected] :
       {Case{1e9, {128}}, Case{1e10, {128, 256}}, Case{1e12, {128, 256, 512, 1024}},
        Case{1e15, {128, 256, 512, 1024, 2048, 4096}}}) {
    std::vector<int64_t> sides;
    const double measured = ProductFlops([&, flops = flops](int64_t side) {
      sides.push_back(side);
      const auto n = static_cast<double>(side);
      return 2 * n * n * n / flops;
    });
    EXPECT_DOUBLE_EQ(measured, flops);
    EXPECT_EQ(sides, expected) << flops;
  }
}

TEST(DeviceSpeedTest, IsBoundByTheSlower) {
  const DeviceSpeed speed{1e12, 1e11};
  EXPECT_DOUBLE_EQ(speed.Seconds(1e12, 1e10), 1);
  EXPECT_DOUBLE_EQ(speed.Seconds(1e12, 2e11), 2);
}

}  // namespace
}  // namespace distorch
