#include "lib/device/device_speeds.h"

#include <gtest/gtest.h>

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

TEST(DeviceSpeedTest, IsBoundByTheSlower) {
  const DeviceSpeed speed{1e12, 1e11};
  EXPECT_DOUBLE_EQ(speed.Seconds(1e12, 1e10), 1);
  EXPECT_DOUBLE_EQ(speed.Seconds(1e12, 2e11), 2);
}

}  // namespace
}  // namespace distorch
