#include "lib/device/memory_peak.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>

#include "lib/device/simulated_device.h"
#include "tests/lib/device/error_of.h"

namespace distorch {
namespace {

constexpr int64_t kMiB = 1 << 20;
const at::Device kSim0(at::kPrivateUse1, 0);
const at::Device kSim1(at::kPrivateUse1, 1);

at::Tensor Bytes(int64_t count, const at::Device& device = kSim0) {
  return at::empty({count}, at::TensorOptions(device).dtype(at::kByte));
}

class MemoryPeakTest : public testing::Test {
 protected:
  MemoryPeakTest() {
    EXPECT_TRUE(ConfigureSimulatedDevices({{{"cuda", 0}, 8 * kMiB}, {{"cuda", 1}, 8 * kMiB}}).ok());
  }
  const c10::InferenceMode no_autograd_;
};

TEST_F(MemoryPeakTest, IsTheMostAboveTheStart) {
  const at::Tensor before = Bytes(kMiB);
  { const at::Tensor larger = Bytes(4 * kMiB); }
  const MemoryPeak peak(kSim0);
  EXPECT_EQ(peak.bytes(), 0);
  { const at::Tensor a = Bytes(kMiB), b = Bytes(2 * kMiB); }
  const at::Tensor elsewhere = Bytes(4 * kMiB, kSim1);
  const at::Tensor last = Bytes(kMiB / 2);
  EXPECT_EQ(peak.bytes(), 3 * kMiB);
}

TEST_F(MemoryPeakTest, CountsWhatWasAskedForInVain) {
  const at::Tensor before = Bytes(3 * kMiB);
  const MemoryPeak peak(kSim0);
  const at::Tensor fits = Bytes(kMiB);
  ErrorOf<c10::OutOfMemoryError>([] { Bytes(5 * kMiB); });
  EXPECT_EQ(peak.bytes(), 6 * kMiB);
}

TEST_F(MemoryPeakTest, ACpuDoesNotCount) {
  const MemoryPeak peak(at::kCPU);
  const at::Tensor tensor = Bytes(kMiB, at::kCPU);
  EXPECT_FALSE(peak.bytes().has_value());
}

TEST_F(MemoryPeakTest, OneChosenAllocationFails) {
  FailSimulatedAllocation(0, 3);
  const at::Tensor first = Bytes(1), second = Bytes(1);
  const at::Tensor elsewhere = Bytes(1, kSim1);
  EXPECT_EQ(GetSimulatedDeviceStats(0).fails_in, 1);
  const std::string message = ErrorOf<c10::OutOfMemoryError>([] { Bytes(1); });
  EXPECT_NE(message.find("cuda:0 (simulated): out of memory"), std::string::npos) << message;
  EXPECT_EQ(GetSimulatedDeviceStats(0).fails_in, 0);
  EXPECT_EQ(GetSimulatedDeviceStats(0).allocated_bytes, 2);
  const at::Tensor next = Bytes(1);
}

}  // namespace
}  // namespace distorch
