// Simulated accelerators: LibTorch's PrivateUse1 backend (named "sim") over host memory, so that
// placement, accounting and out-of-memory behave as on real devices in any test and on any laptop.
//
// Each device has its own allocator with a capacity (an allocation over it throws
// c10::OutOfMemoryError, as CUDA's does) and exact byte accounting. Operators run on the CPU over
// zero-copy aliases, so results are bit-identical to the CPU's. An operator whose operands lie on
// different devices throws, as on CUDA (a zero-dim CPU scalar is allowed).
#ifndef LIB_DEVICE_SIMULATED_DEVICE_H_
#define LIB_DEVICE_SIMULATED_DEVICE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/device/device_id.h"

namespace distorch {

struct SimulatedDevice : DeviceMemory {
  double flops_per_second = 0;  // what predictions take it to compute; 0: what the CPU does
};

// Parses "cuda:0=8GiB,cuda:1=12GiB@40TFLOPS,cpu=64GiB". Names are unique; amounts as ParseByteSize
// takes them; a speed is in GFLOPS, TFLOPS or PFLOPS. An entry "cpu" only sets the memory that the
// planner sees for it, and the speed that predictions do. INVALID_ARGUMENT naming the piece.
absl::StatusOr<std::vector<SimulatedDevice>> ParseSimulatedDevices(std::string_view text);

// Registers the backend (once a process) and sets the devices to `devices`, in order: torch device
// "sim:i" has capacity devices[i].total_bytes. Entries for cpu must have been taken out. At
// most 16. Call it before any other use, from one thread; a second call replaces capacities and
// requires that nothing is allocated.
absl::Status ConfigureSimulatedDevices(const std::vector<DeviceMemory>& devices);

struct SimulatedDeviceStats {
  int64_t capacity_bytes = 0;
  int64_t allocated_bytes = 0;
  int64_t peak_bytes = 0;   // highest allocated_bytes since the last ResetSimulatedPeak
  int64_t asked_bytes = 0;  // the same, had every allocation since ResetSimulatedAsked succeeded
  int64_t fails_in = 0;     // allocations until the one that FailSimulatedAllocation lets fail
};
// `index` is that of "sim:index".
SimulatedDeviceStats GetSimulatedDeviceStats(int index);
void ResetSimulatedPeak(int index);
void ResetSimulatedAsked(int index);

// For tests of what runs out of memory anywhere: the `nth` allocation from now on (1: the next)
// fails as one that does not fit; 0: none.
void FailSimulatedAllocation(int index, int64_t nth);

}  // namespace distorch

#endif  // LIB_DEVICE_SIMULATED_DEVICE_H_
