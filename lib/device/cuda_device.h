// The CUDA devices, found without the toolkit: names from the driver's stable C interface, memory
// from LibTorch, both loaded at run time. A program built on a machine without CUDA uses the
// devices of one that has them, and one built with it starts where there is no driver.
#ifndef LIB_DEVICE_CUDA_DEVICE_H_
#define LIB_DEVICE_CUDA_DEVICE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace distorch {

struct CudaDevice {
  std::string name;  // "NVIDIA H200"
  std::string uuid;  // "GPU-8f2c1f1e-…", as nvidia-smi prints it
};

// The visible devices (CUDA_VISIBLE_DEVICES applies), the i-th being LibTorch's cuda:i; makes
// LibTorch ready to use them. Empty without a driver or a device; FAILED_PRECONDITION where the
// driver fails or LibTorch cannot use what it has. Must be called before any other use of CUDA
// through LibTorch, which remembers that there was none.
absl::StatusOr<std::vector<CudaDevice>> DiscoverCudaDevices();

struct CudaMemory {
  int64_t total_bytes = 0;
  // What the driver has, and what LibTorch's allocator keeps for its next allocations.
  int64_t free_bytes = 0;
  int64_t allocated_bytes = 0;  // by this process's tensors
  int64_t peak_bytes = 0;       // of these, since the last ResetCudaPeak
};

// Of device `index`. Both throw c10::Error if the driver fails.
CudaMemory ReadCudaMemory(int index);
void ResetCudaPeak(int index);

}  // namespace distorch

#endif  // LIB_DEVICE_CUDA_DEVICE_H_
