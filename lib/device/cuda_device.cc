#include "lib/device/cuda_device.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <dlfcn.h>

#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace distorch {
namespace {

// The part of the driver's interface (cuda.h) used here. A CUresult of 0 is success; a CUdevice is
// an int.
struct Driver {
  int (*init)(unsigned int flags);
  int (*device_count)(int* count);
  int (*device)(int* device, int ordinal);
  int (*name)(char* name, int length, int device);
  int (*uuid)(std::byte* uuid, int device);
};

// False where the library or a function is missing.
bool LoadDriver(Driver& driver) {
  // Never unloaded: LibTorch goes on using it.
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  const auto load = [library](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    return function != nullptr;
  };
  return load("cuInit", driver.init) && load("cuDeviceGetCount", driver.device_count) &&
         load("cuDeviceGet", driver.device) && load("cuDeviceGetName", driver.name) &&
         load("cuDeviceGetUuid", driver.uuid);
}

std::string FormatUuid(std::span<const std::byte, 16> uuid) {
  std::string text = absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(uuid.data()), uuid.size()));
  for (const size_t group : {8, 13, 18, 23}) text.insert(group, "-");
  return "GPU-" + text;
}

constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE

absl::Status DriverError(int result) {
  return absl::FailedPreconditionError(absl::StrCat("the driver fails with error ", result));
}

absl::StatusOr<std::vector<CudaDevice>> ListDevices() {
  std::vector<CudaDevice> devices;
  Driver driver{};
  if (!LoadDriver(driver)) return devices;
  const int started = driver.init(0);
  if (started == kNoDevice) return devices;
  if (started != 0) return DriverError(started);
  int count = 0;
  if (const int result = driver.device_count(&count); result != 0) return DriverError(result);
  devices.resize(count);
  for (int i = 0; i < count; ++i) {
    std::array<char, 256> name{};
    std::array<std::byte, 16> uuid{};
    int device = 0;
    if (const int result = driver.device(&device, i); result != 0) return DriverError(result);
    if (driver.name(name.data(), name.size() - 1, device) == 0) devices[i].name = name.data();
    if (driver.uuid(uuid.data(), device) == 0) devices[i].uuid = FormatUuid(uuid);
  }
  return devices;
}

}  // namespace

absl::StatusOr<std::vector<CudaDevice>> DiscoverCudaDevices() {
  ASSIGN_OR_RETURN(std::vector<CudaDevice> devices, ListDevices());
  if (devices.empty()) return devices;
  // Found through the program's rpath to LibTorch; its static initializers register the device.
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("LibTorch's CUDA library does not load: ", dlerror()));
  }
  if (!at::hasCUDA()) return absl::FailedPreconditionError("LibTorch finds no CUDA device");
  at::globalContext().lazyInitDevice(c10::kCUDA);
  return devices;
}

CudaMemory ReadCudaMemory(int index) {
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto device = static_cast<c10::DeviceIndex>(index);
  c10::DeviceAllocator* const allocator = at::getDeviceAllocator(c10::kCUDA);
  const auto [free, total] = allocator->getMemoryInfo(device);
  const auto stats = allocator->getDeviceStats(device);
  const int64_t allocated = stats.allocated_bytes[kAll].current;
  return {.total_bytes = static_cast<int64_t>(total),
          .free_bytes = static_cast<int64_t>(free) + stats.reserved_bytes[kAll].current - allocated,
          .allocated_bytes = allocated,
          .peak_bytes = stats.allocated_bytes[kAll].peak};
}

void ResetCudaPeak(int index) {
  at::getDeviceAllocator(c10::kCUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(index));
}

}  // namespace distorch
