// Memory of the simulated devices: the table of devices, byte accounting, and the correspondence
// between a simulated storage and the CPU storage that holds its bytes.
//
// A simulated storage owns exactly one CPU storage over the same memory (its DataPtr's context), so
// that the operators' CPU aliases of two simulated tensors share a storage exactly when the tensors
// do. The bytes are counted where they are allocated: every such CPU storage gets its memory from
// the device's counting allocator, or, when a CPU kernel made it, had its memory adopted.
#ifndef LIB_DEVICE_SIMULATED_MEMORY_H_
#define LIB_DEVICE_SIMULATED_MEMORY_H_

#include <c10/core/Allocator.h>
#include <c10/core/Device.h>
#include <c10/core/Storage.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "lib/device/device_id.h"
#include "lib/device/simulated_device.h"

namespace distorch::simulated {

inline constexpr c10::DeviceType kDeviceType = c10::DeviceType::PrivateUse1;
inline constexpr int kMaxDevices = 16;

// Allocates host memory in the name of one device. Thread-safe once configured.
class CountingAllocator final : public c10::Allocator {
 public:
  // Requires that nothing is allocated.
  void Configure(std::string name, int64_t capacity_bytes);

  const std::string& name() const { return name_; }
  SimulatedDeviceStats Stats() const;
  void ResetPeak();
  void ResetAsked();
  // As FailSimulatedAllocation.
  void FailAllocation(int64_t nth) { fails_in_ = nth; }

  // Memory on the CPU. Throws c10::OutOfMemoryError, before anything is allocated, if it would not
  // fit.
  c10::DataPtr allocate(size_t bytes) override;
  // Counts memory that the CPU's allocator handed out; throws as allocate does, freeing the memory.
  c10::DataPtr Adopt(c10::DataPtr memory, size_t bytes);
  void copy_data(void* dest, const void* src, std::size_t count) const override;

 private:
  friend class Charge;
  // Whether the allocation under way is the one that is to fail.
  bool FailsNow();
  void Add(int64_t bytes);
  void Subtract(int64_t bytes);

  std::string name_;
  int64_t capacity_ = 0;
  std::atomic<int64_t> allocated_ = 0;
  std::atomic<int64_t> peak_ = 0;
  std::atomic<int64_t> asked_ = 0;
  std::atomic<int64_t> fails_in_ = 0;
};

// The process's devices, "sim:0" first. Never destroyed: tensors with static lifetime may outlive
// main.
struct DeviceTable {
  std::array<CountingAllocator, kMaxDevices> allocators;
  std::atomic<int> size = 0;
};
DeviceTable& Devices();

// The allocator of `device`, which is a simulated one; throws c10::Error if there is no such
// device.
CountingAllocator& AllocatorOf(c10::Device device);
// The name users know: "cuda:0" for a simulated device, LibTorch's name for any other.
std::string UserName(c10::Device device);

// The simulated storage over `cpu`, whose memory already came from the device's allocator.
c10::Storage WrapStorage(c10::Storage cpu, c10::Device device);
// The same for a storage made by a CPU kernel: its memory is counted from now on, without a copy.
c10::Storage AdoptStorage(c10::Storage cpu, c10::Device device);
// The CPU storage inside a simulated one.
c10::Storage CpuStorage(const c10::Storage& simulated);
// Follows a reallocation of the CPU storage by a kernel that resized it.
void FollowCpuStorage(const c10::Storage& simulated) noexcept;

}  // namespace distorch::simulated

#endif  // LIB_DEVICE_SIMULATED_MEMORY_H_
