// What a piece of work takes of a device's memory.
#ifndef LIB_DEVICE_MEMORY_PEAK_H_
#define LIB_DEVICE_MEMORY_PEAK_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>

namespace distorch {

// Watches a device's allocator from its construction on. One at a time for a device: a second one
// makes the first forget what was before it. Whoever else allocates on the device meanwhile is
// counted, too. Calls throw as LibTorch does.
class MemoryPeak {
 public:
  explicit MemoryPeak(const c10::Device& device);

  // The most that was allocated at one time, above what was at the start; a simulated device counts
  // what was asked for in vain, too, so that a failure tells how much would have sufficed. nullopt
  // on a CPU: its allocator does not count, and the process's resident size says too little of it
  // (the heap keeps what was freed).
  std::optional<int64_t> bytes() const;

 private:
  const c10::Device device_;
  int64_t at_start_ = 0;
};

}  // namespace distorch

#endif  // LIB_DEVICE_MEMORY_PEAK_H_
