#include "lib/device/device_speeds.h"

#include <gtest/gtest.h>

#include <ctime>
#include <limits>
#include <memory>

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
  EXPECT_EQ(other->flops_per_second, cpu->flops_per_second);  // measured once
  EXPECT_EQ(speeds.Of(kCpu, c10::kFloat)->bytes_per_second, cpu->bytes_per_second);
}

double ProcessorSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// A CPU may have no instructions for halves, and multiplies them a hundred times slower then.
TEST(DeviceSpeedsTest, NoTypeTakesLongToMeasure) {
  auto devices = DeviceManager::Create({.simulate_devices = "cpu=1GiB", .compute_dtype = "fp32"});
  ASSERT_TRUE(devices.ok()) << devices.status();
  for (const c10::ScalarType dtype : {c10::kFloat, c10::kHalf, c10::kBFloat16}) {
    DeviceSpeeds speeds(**devices);
    const double before = ProcessorSeconds();
    ASSERT_TRUE(speeds.Of(kCpu, dtype).ok());
    EXPECT_LT(ProcessorSeconds() - before, 0.5) << c10::toString(dtype);
  }
}

TEST(DeviceSpeedsTest, WhatModelsMayAskForIsMeasuredAtOnce) {
  auto devices = DeviceManager::Create(
      {.simulate_devices = "cuda:0=1MiB@40TFLOPS,cuda:1=1MiB", .compute_dtype = "fp32"});
  ASSERT_TRUE(devices.ok()) << devices.status();
  DeviceSpeeds speeds(**devices);
  ASSERT_TRUE(speeds.MeasureAll().ok());
  const double before = ProcessorSeconds();
  for (const DeviceId& device : {kCuda0, kCuda1, kCpu}) {
    EXPECT_TRUE(speeds.Of(device, (*devices)->ComputeDtype(device, c10::kHalf)).ok());
  }
  EXPECT_LT(ProcessorSeconds() - before, 1e-3);
}

TEST(DeviceSpeedTest, IsBoundByTheSlower) {
  const DeviceSpeed speed{1e12, 1e11};
  EXPECT_DOUBLE_EQ(speed.Seconds(1e12, 1e10), 1);
  EXPECT_DOUBLE_EQ(speed.Seconds(1e12, 2e11), 2);
}

}  // namespace
}  // namespace distorch
