#include "lib/device/measure_links.h"

#include <gtest/gtest.h>

namespace distorch {
namespace {

TEST(MeasureLinksTest, EachTwoDevicesHaveASpeedBothWays) {
  const auto devices = DeviceManager::Create({});
  ASSERT_TRUE(devices.ok()) << devices.status();
  const auto links = MeasureLinks(**devices);
  ASSERT_TRUE(links.ok()) << links.status();
  const size_t count = (*devices)->devices().size();
  EXPECT_EQ(links->entries().size(), count * (count - 1) + 1);
  for (const auto& [ends, speed] : links->entries()) {
    EXPECT_GT(speed.bytes_per_second, 1e8) << ends.first.ToString() << ends.second.ToString();
    EXPECT_GE(speed.latency_seconds, 0);
    EXPECT_LT(speed.latency_seconds, 0.1);
  }
  EXPECT_NE(links->Find(kDisk, DeviceId{}), nullptr);
}

TEST(MeasureLinksTest, SimulatedDevicesHaveNoneOfTheirOwn) {
  const auto devices = DeviceManager::Create({.simulate_devices = "cuda:0=1MiB"});
  ASSERT_TRUE(devices.ok()) << devices.status();
  const auto links = MeasureLinks(**devices);
  ASSERT_TRUE(links.ok()) << links.status();
  EXPECT_TRUE(links->entries().empty());
}

}  // namespace
}  // namespace distorch
