#include "lib/device/device_manager.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;
const DeviceId kCpu{};
const DeviceId kCuda0{"cuda", 0};
const DeviceId kCuda1{"cuda", 1};

std::unique_ptr<DeviceManager> Simulated(const std::string& devices,
                                         const std::string& compute_dtype = "auto") {
  auto manager =
      DeviceManager::Create({.simulate_devices = devices, .compute_dtype = compute_dtype});
  EXPECT_TRUE(manager.ok()) << manager.status();
  return *std::move(manager);
}

TEST(DeviceManagerTest, AcceleratorsComeFirstInOrderAndTheCpuLast) {
  const auto manager = Simulated("cuda:1=2GiB,cpu=64GiB,cuda:0=1GiB");
  EXPECT_THAT(manager->devices(), ElementsAre(kCuda0, kCuda1, kCpu));
  EXPECT_EQ(manager->default_device(), kCuda0);
  EXPECT_EQ(manager->KnownNames(), "cuda:0, cuda:1, cpu");
  EXPECT_TRUE(manager->Has(kCuda1));
  EXPECT_FALSE(manager->Has({"cuda", 2}));
  const std::vector<DeviceMemory> memory = manager->Memory();
  ASSERT_EQ(memory.size(), 3u);
  EXPECT_EQ(memory[0].device, kCuda0);
  EXPECT_EQ(memory[0].total_bytes, kGiB);
  EXPECT_EQ(memory[1].total_bytes, 2 * kGiB);
  EXPECT_EQ(memory[2].total_bytes, 64 * kGiB);
}

TEST(DeviceManagerTest, LibTorchReachesTheDeviceOfTheName) {
  const auto manager = Simulated("cuda:1=2GiB,cuda:0=1GiB");
  EXPECT_EQ(manager->TorchDevice(kCpu), at::Device(at::kCPU));
  const at::Tensor x = at::zeros({256}, at::TensorOptions(manager->TorchDevice(kCuda1)));
  const std::vector<DeviceSnapshot> snapshot = manager->Snapshot();
  ASSERT_EQ(snapshot.size(), 3u);
  EXPECT_EQ(snapshot[0].free_bytes, kGiB);
  EXPECT_EQ(snapshot[1].device, kCuda1);
  EXPECT_EQ(snapshot[1].kind, "simulated");
  EXPECT_EQ(snapshot[1].description, "simulated accelerator over host memory");
  EXPECT_EQ(snapshot[1].total_bytes, 2 * kGiB);
  EXPECT_EQ(snapshot[1].free_bytes, 2 * kGiB - 1024);
  EXPECT_EQ(snapshot[2].kind, "cpu");
  EXPECT_FALSE(snapshot[2].description.empty());
}

TEST(DeviceManagerTest, TheHostsMemoryIsReadWhereItIsNotSimulated) {
  const auto manager = Simulated("cuda:0=1GiB");
  const DeviceSnapshot cpu = manager->Snapshot().back();
  EXPECT_GT(cpu.total_bytes, 0);
  EXPECT_GT(cpu.free_bytes, 0);
  EXPECT_LE(cpu.free_bytes, cpu.total_bytes);
}

TEST(DeviceManagerTest, SimulatingOnlyTheCpuLeavesNoAccelerator) {
  const auto manager = Simulated("cpu=8GiB");
  EXPECT_THAT(manager->devices(), ElementsAre(kCpu));
  EXPECT_EQ(manager->default_device(), kCpu);
}

TEST(DeviceManagerTest, RealDevicesAreThoseOfThisMachine) {
  const auto manager = DeviceManager::Create({});
  ASSERT_TRUE(manager.ok()) << manager.status();
  EXPECT_EQ((*manager)->devices().back(), kCpu);
  EXPECT_EQ((*manager)->warning(), "");
  for (const DeviceSnapshot& snapshot : (*manager)->Snapshot()) {
    EXPECT_GT(snapshot.total_bytes, 0) << snapshot.device.ToString();
    if (snapshot.kind != "cuda") continue;
    EXPECT_THAT(snapshot.uuid, ::testing::MatchesRegex("GPU-.{8}-.{4}-.{4}-.{4}-.{12}"));
    EXPECT_FALSE(snapshot.description.empty());
    const at::Device device = (*manager)->TorchDevice(snapshot.device);
    EXPECT_EQ(at::ones({4}, at::TensorOptions(device)).sum().item<float>(), 4);
  }
}

TEST(DeviceManagerTest, DtypesFollowTheFlagAsFarAsTheCpuCan) {
  const at::ScalarType bf16 = ReadHostProcessor().has_bfloat16 ? at::kBFloat16 : at::kFloat;
  const std::vector<std::tuple<std::string, at::ScalarType, at::ScalarType>> flags = {
      {"fp32", at::kFloat, at::kFloat},
      {"bf16", bf16, at::kBFloat16},
      {"fp16", at::kFloat, at::kHalf}};
  for (const auto& [flag, compute, stored] : flags) {
    const auto manager = Simulated("cuda:0=1GiB", flag);
    for (const DeviceId& device : {kCuda0, kCpu}) {
      EXPECT_EQ(manager->ComputeDtype(device, at::kFloat), compute) << flag;
      EXPECT_EQ(manager->ComputeDtype(device, at::kHalf), compute) << flag;
      EXPECT_EQ(manager->StorageDtype(device, at::kHalf), stored) << flag;
    }
  }
}

TEST(DeviceManagerTest, AutomaticComputeDtypeIsWhatTheCpuMultipliesBest) {
  const auto manager = Simulated("cuda:0=1GiB");
  const at::ScalarType best = ReadHostProcessor().has_bfloat16 ? at::kBFloat16 : at::kFloat;
  EXPECT_EQ(manager->ComputeDtype(kCuda0, at::kHalf), best);
  EXPECT_EQ(manager->ComputeDtype(kCpu, at::kFloat), best);
  EXPECT_EQ(manager->StorageDtype(kCpu, at::kHalf), best);
}

TEST(DeviceManagerTest, ErrorsNameTheFlagAndThePiece) {
  const auto dtype = DeviceManager::Create({.simulate_devices = "", .compute_dtype = "int8"});
  EXPECT_EQ(dtype.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(dtype.status().message()), HasSubstr("--compute_dtype: 'int8'"));
  const auto devices =
      DeviceManager::Create({.simulate_devices = "cuda:0=1GiB,cuda:1", .compute_dtype = "auto"});
  EXPECT_EQ(devices.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(devices.status().message()), HasSubstr("--simulate_devices: 'cuda:1'"));
}

}  // namespace
}  // namespace distorch
