#include "lib/device/simulated_device.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace distorch {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;
const at::Device kSim0(at::kPrivateUse1, 0);
const at::Device kSim1(at::kPrivateUse1, 1);

TEST(ConfigureSimulatedDevicesTest, ReconfiguringNeedsEmptyDevices) {
  ASSERT_TRUE(ConfigureSimulatedDevices({{{"cuda", 0}, kMiB}, {{"cuda", 1}, kMiB}}).ok());
  {
    const at::Tensor x = at::ones({3}).to(kSim1);
    const absl::Status status = ConfigureSimulatedDevices({{{"xpu", 0}, kMiB}});
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("cuda:1 (simulated) still holds 12 B"));
  }
  ASSERT_TRUE(ConfigureSimulatedDevices({{{"xpu", 0}, kMiB}}).ok());
  EXPECT_EQ(GetSimulatedDeviceStats(0).capacity_bytes, kMiB);
  EXPECT_NO_THROW(at::empty({4}, at::TensorOptions(kSim0)));
  EXPECT_THROW(at::empty({kMiB}, at::TensorOptions(kSim0)), c10::OutOfMemoryError);
  EXPECT_THROW(at::empty({1}, at::TensorOptions(kSim1)), c10::Error);
}

TEST(ConfigureSimulatedDevicesTest, AtMostSixteenDevices) {
  std::vector<DeviceMemory> devices;
  for (int i = 0; i < 17; ++i) devices.push_back({{"cuda", i}, kMiB});
  EXPECT_EQ(ConfigureSimulatedDevices(devices).code(), absl::StatusCode::kInvalidArgument);
}

TEST(ParseSimulatedDevicesTest, TakesNamesAndAmounts) {
  const auto devices = ParseSimulatedDevices("cuda:0=8GiB, cuda:1=512MB,cpu=1000");
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 3u);
  EXPECT_EQ((*devices)[0].device, (DeviceId{"cuda", 0}));
  EXPECT_EQ((*devices)[0].total_bytes, int64_t{8} << 30);
  EXPECT_EQ((*devices)[1].total_bytes, 512 * kMiB);
  EXPECT_TRUE((*devices)[2].device.is_cpu());
  EXPECT_EQ((*devices)[2].total_bytes, 1000);
}

TEST(ParseSimulatedDevicesTest, TakesSpeeds) {
  const auto devices = ParseSimulatedDevices("cuda:0=8GiB@1.5TFLOPS,cuda:1=1g,cpu=1g@300GFLOPS");
  ASSERT_TRUE(devices.ok()) << devices.status();
  EXPECT_EQ((*devices)[0].total_bytes, int64_t{8} << 30);
  EXPECT_DOUBLE_EQ((*devices)[0].flops_per_second, 1.5e12);
  EXPECT_EQ((*devices)[1].flops_per_second, 0);
  EXPECT_DOUBLE_EQ((*devices)[2].flops_per_second, 3e11);
}

TEST(ParseSimulatedDevicesTest, NamesTheWrongPiece) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "''"},
      {"cuda:0=8GiB,", "''"},
      {"cuda:0", "'cuda:0'"},
      {"cuda:0=", "'cuda:0='"},
      {"cuda:0=1GiB,cuda:1=lots", "'cuda:1=lots'"},
      {"cuda:0=0", "'cuda:0=0'"},
      {"cuda:0=-1", "'cuda:0=-1'"},
      {"c u d a=1", "'c u d a=1'"},
      {"cuda:0=1g@", "'cuda:0=1g@': a speed is above 0"},
      {"cuda:0=1g@5", "'cuda:0=1g@5': a speed"},
      {"cuda:0=1g@0TFLOPS", "a speed"},
      {"cuda:0=1g@-1TFLOPS", "a speed"},
      {"cuda:0=1g@nanTFLOPS", "a speed"},
      {"cuda:0=1g@1e9PFLOPS", "a speed"},
      {"cuda=1GiB,cuda:0=2GiB", "cuda:0 is named twice"},
  };
  for (const auto& [text, piece] : cases) {
    const auto devices = ParseSimulatedDevices(text);
    EXPECT_EQ(devices.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(devices.status().message()), HasSubstr(piece)) << text;
  }
}

}  // namespace
}  // namespace distorch
