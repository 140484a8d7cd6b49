#include "lib/distorch/transfer_meter.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace distorch {
namespace {

const DeviceId kCpu{"cpu", 0}, kCuda0{"cuda", 0}, kCuda1{"cuda", 1};

TEST(TransferMeterTest, CountsByLinkAndDirection) {
  TransferMeter meter({kCuda0, kCuda1, kCpu});
  EXPECT_EQ(meter.IndexOf(kCpu), 2);
  EXPECT_EQ(meter.IndexOf({"cuda", 7}), -1);
  EXPECT_TRUE(meter.Links().empty());

  meter.AddTransfer(2, 0, 100, 1'500'000'000);
  meter.AddTransfer(2, 0, 11, 500'000'000, 250'000'000);
  meter.AddTransfer(0, 2, 7, 0);
  const auto links = meter.Links();
  ASSERT_EQ(links.size(), 2u);
  EXPECT_EQ(links[0].from, kCuda0);
  EXPECT_EQ(links[0].to, kCpu);
  EXPECT_EQ(links[0].bytes, 7);
  EXPECT_EQ(links[1].from, kCpu);
  EXPECT_EQ(links[1].to, kCuda0);
  EXPECT_EQ(links[1].bytes, 111);
  EXPECT_DOUBLE_EQ(links[1].exposed_seconds, 2.0);
  EXPECT_DOUBLE_EQ(links[1].overlapped_seconds, 0.25);
}

TEST(TransferMeterTest, KeepsThePeakOfStaging) {
  TransferMeter meter({kCuda0, kCpu});
  meter.AddStaging(0, 100);
  meter.AddStaging(0, 50);
  meter.AddStaging(0, -120);
  meter.AddStaging(0, 10);
  EXPECT_EQ(meter.staging_bytes(0), 40);
  EXPECT_EQ(meter.peak_staging_bytes(0), 150);
  EXPECT_EQ(meter.staging_bytes(1), 0);
}

TEST(TransferMeterTest, IgnoresUnknownDevices) {
  TransferMeter meter({kCuda0});
  for (const int unknown : {-1, 1, TransferMeter::kMaxDevices, 1 << 30}) {
    meter.AddTransfer(unknown, 0, 1, 1);
    meter.AddTransfer(0, unknown, 1, 1);
    meter.AddStaging(unknown, 1);
    EXPECT_EQ(meter.staging_bytes(unknown), 0);
    EXPECT_EQ(meter.peak_staging_bytes(unknown), 0);
  }
  EXPECT_TRUE(meter.Links().empty());
}

TEST(TransferMeterTest, DevicesPastTheLimitAreUnknown) {
  std::vector<DeviceId> devices;
  for (int i = 0; i <= TransferMeter::kMaxDevices; ++i) devices.push_back({"cuda", i});
  const TransferMeter meter(devices);
  EXPECT_EQ(meter.IndexOf({"cuda", TransferMeter::kMaxDevices - 1}),
            TransferMeter::kMaxDevices - 1);
  EXPECT_EQ(meter.IndexOf({"cuda", TransferMeter::kMaxDevices}), -1);
}

TEST(TransferMeterTest, ThreadsLoseNothing) {
  TransferMeter meter({kCuda0, kCpu});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 10'000; ++j) {
        meter.AddStaging(0, 3);
        meter.AddTransfer(1, 0, 3, 1);
        meter.AddStaging(0, -3);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(meter.staging_bytes(0), 0);
  EXPECT_GE(meter.peak_staging_bytes(0), 3);
  EXPECT_LE(meter.peak_staging_bytes(0), 12);
  EXPECT_EQ(meter.Links().at(0).bytes, 4 * 10'000 * 3);
}

}  // namespace
}  // namespace distorch
