#include "lib/device/memory_peak.h"

#include "lib/device/cuda_device.h"
#include "lib/device/simulated_device.h"

namespace distorch {

MemoryPeak::MemoryPeak(const c10::Device& device) : device_(device) {
  if (device.is_cpu()) return;
  const int index = device.index();
  if (device.is_cuda()) {
    ResetCudaPeak(index);
    at_start_ = ReadCudaMemory(index).allocated_bytes;
  } else {
    ResetSimulatedAsked(index);
    at_start_ = GetSimulatedDeviceStats(index).allocated_bytes;
  }
}

std::optional<int64_t> MemoryPeak::bytes() const {
  if (device_.is_cpu()) return std::nullopt;
  const int index = device_.index();
  const int64_t peak = device_.is_cuda() ? ReadCudaMemory(index).peak_bytes
                                         : GetSimulatedDeviceStats(index).asked_bytes;
  return peak - at_start_;
}

}  // namespace distorch
