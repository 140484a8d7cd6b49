#include "lib/device/device_manager.h"

#include <c10/core/Device.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"
#include "lib/device/simulated_device.h"

namespace distorch {
namespace {

absl::StatusOr<std::optional<c10::ScalarType>> ParseComputeDtype(const std::string& text) {
  if (text == "auto") return std::nullopt;
  if (text == "fp32") return c10::kFloat;
  if (text == "bf16") return c10::kBFloat16;
  if (text == "fp16") return c10::kHalf;
  return absl::InvalidArgumentError(
      absl::StrCat("--compute_dtype: '", text, "' is not auto, fp32, bf16 or fp16"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceManager>> DeviceManager::Create(const DeviceOptions& options) {
  std::unique_ptr<DeviceManager> manager(new DeviceManager());
  ASSIGN_OR_RETURN(manager->compute_dtype_, ParseComputeDtype(options.compute_dtype));
  manager->processor_ = ReadHostProcessor();
  if (options.simulate_devices.empty()) {
    manager->AddCudaDevices();
  } else {
    RETURN_IF_ERROR(manager->AddSimulatedDevices(options.simulate_devices));
  }
  manager->devices_.push_back(DeviceId{});
  return manager;
}

absl::Status DeviceManager::AddSimulatedDevices(const std::string& flag) {
  absl::StatusOr<std::vector<SimulatedDevice>> parsed = ParseSimulatedDevices(flag);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--simulate_devices: ", parsed.status().message()));
  }
  std::vector<DeviceMemory> accelerators;
  for (const SimulatedDevice& entry : *parsed) {
    if (entry.flops_per_second > 0) given_flops_[entry.device] = entry.flops_per_second;
    if (entry.device.is_cpu()) {
      cpu_total_override_ = entry.total_bytes;
    } else {
      accelerators.push_back(entry);
    }
  }
  std::ranges::sort(accelerators, {}, &DeviceMemory::device);
  RETURN_IF_ERROR(ConfigureSimulatedDevices(accelerators));
  simulated_ = true;
  for (DeviceMemory& entry : accelerators) devices_.push_back(std::move(entry.device));
  return absl::OkStatus();
}

void DeviceManager::AddCudaDevices() {
  absl::StatusOr<std::vector<CudaDevice>> found = DiscoverCudaDevices();
  if (!found.ok()) {
    warning_ = absl::StrCat("this machine's CUDA devices are not used: ", found.status().message());
    return;
  }
  cuda_devices_ = *std::move(found);
  for (int i = 0; i < std::ssize(cuda_devices_); ++i) {
    devices_.push_back({.type = "cuda", .index = i});
  }
}

std::vector<DeviceMemory> DeviceManager::Memory() const {
  std::vector<DeviceMemory> memory;
  for (DeviceSnapshot& snapshot : Snapshot()) {
    memory.push_back({std::move(snapshot.device), snapshot.total_bytes});
  }
  return memory;
}

bool DeviceManager::Has(const DeviceId& device) const {
  return std::ranges::find(devices_, device) != devices_.end();
}

double DeviceManager::given_flops(const DeviceId& device) const {
  const auto given = given_flops_.find(device);
  return given == given_flops_.end() ? 0 : given->second;
}

std::string DeviceManager::KnownNames() const {
  return absl::StrJoin(devices_, ", ", [](std::string* out, const DeviceId& device) {
    absl::StrAppend(out, device.ToString());
  });
}

c10::Device DeviceManager::TorchDevice(const DeviceId& device) const {
  if (device.is_cpu()) return c10::kCPU;
  const auto position = std::ranges::find(devices_, device) - devices_.begin();
  return {simulated_ ? c10::kPrivateUse1 : c10::kCUDA, static_cast<c10::DeviceIndex>(position)};
}

std::vector<DeviceSnapshot> DeviceManager::Snapshot() const {
  std::vector<DeviceSnapshot> snapshots;
  for (int i = 0; i + 1 < std::ssize(devices_); ++i) {
    snapshots.push_back(simulated_ ? SimulatedSnapshot(i) : CudaSnapshot(i));
  }
  snapshots.push_back(CpuSnapshot());
  return snapshots;
}

std::optional<int64_t> DeviceManager::AllocatedBytes(const DeviceId& device) const {
  if (device.is_cpu()) return std::nullopt;
  const int index = TorchDevice(device).index();
  return simulated_ ? GetSimulatedDeviceStats(index).allocated_bytes
                    : ReadCudaMemory(index).allocated_bytes;
}

DeviceSnapshot DeviceManager::SimulatedSnapshot(int index) const {
  const SimulatedDeviceStats stats = GetSimulatedDeviceStats(index);
  return {.device = devices_[index],
          .kind = "simulated",
          .description = "simulated accelerator over host memory",
          .uuid = "",
          .total_bytes = stats.capacity_bytes,
          .free_bytes = stats.capacity_bytes - stats.allocated_bytes};
}

DeviceSnapshot DeviceManager::CudaSnapshot(int index) const {
  const CudaMemory memory = ReadCudaMemory(index);
  return {.device = devices_[index],
          .kind = "cuda",
          .description = cuda_devices_[index].name,
          .uuid = cuda_devices_[index].uuid,
          .total_bytes = memory.total_bytes,
          .free_bytes = memory.free_bytes};
}

DeviceSnapshot DeviceManager::CpuSnapshot() const {
  const HostMemory memory = ReadHostMemory();
  return {.device = devices_.back(),
          .kind = "cpu",
          .description = processor_.model,
          .uuid = "",
          .total_bytes = cpu_total_override_.value_or(memory.total_bytes),
          .free_bytes = cpu_total_override_.value_or(memory.available_bytes)};
}

c10::ScalarType DeviceManager::ComputeDtype(const DeviceId& device,
                                            c10::ScalarType file_dtype) const {
  if (simulated_ || device.is_cpu()) {
    const c10::ScalarType wanted = compute_dtype_.value_or(c10::kBFloat16);
    return wanted == c10::kBFloat16 && processor_.has_bfloat16 ? wanted : c10::kFloat;
  }
  if (compute_dtype_) return *compute_dtype_;
  return c10::isReducedFloatingType(file_dtype) && c10::elementSize(file_dtype) == 2 ? file_dtype
                                                                                     : c10::kFloat;
}

c10::ScalarType DeviceManager::StorageDtype(const DeviceId& device,
                                            c10::ScalarType file_dtype) const {
  return compute_dtype_.value_or(ComputeDtype(device, file_dtype));
}

}  // namespace distorch
