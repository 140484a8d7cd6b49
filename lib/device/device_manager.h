// The devices of this process under the names users know: real CUDA devices or simulated ones, and
// the CPU.
#ifndef LIB_DEVICE_DEVICE_MANAGER_H_
#define LIB_DEVICE_DEVICE_MANAGER_H_

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/device/cuda_device.h"
#include "lib/device/device_id.h"
#include "lib/device/host_info.h"

namespace distorch {

struct DeviceOptions {
  // --simulate_devices; empty: discover the real ones.
  std::string simulate_devices;
  // --compute_dtype: "auto", "fp32", "bf16" or "fp16".
  std::string compute_dtype = "auto";
};

// A device at one moment.
struct DeviceSnapshot {
  DeviceId device;
  std::string kind;  // "cpu", "cuda" or "simulated"
  std::string
      description;  // "NVIDIA H200", "simulated accelerator over host memory", the CPU's model name
  std::string uuid;  // CUDA's; empty elsewhere
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
};

// Immutable after Create, thread-safe. One a process: the simulated backend is the process's.
class DeviceManager {
 public:
  // INVALID_ARGUMENT naming the flag and the piece that is wrong.
  static absl::StatusOr<std::unique_ptr<DeviceManager>> Create(const DeviceOptions& options);

  // Accelerators first, cpu last.
  const std::vector<DeviceId>& devices() const { return devices_; }
  // The same with their total memory, as the planner takes them.
  std::vector<DeviceMemory> Memory() const;
  // The node's default compute device: the first accelerator, else cpu.
  const DeviceId& default_device() const { return devices_.front(); }
  bool Has(const DeviceId& device) const;
  bool simulated() const { return simulated_; }
  // What --simulate_devices says that `device` computes; 0 where it says nothing.
  double given_flops(const DeviceId& device) const;
  // Why this machine's CUDA devices are not among the devices; empty if they are or it has none.
  const std::string& warning() const { return warning_; }
  // "cuda:0, cuda:1, cpu", for messages.
  std::string KnownNames() const;

  // LibTorch's name for `device`, which must be known.
  c10::Device TorchDevice(const DeviceId& device) const;
  // Current free memory is read from the driver, the simulated allocator or the kernel.
  std::vector<DeviceSnapshot> Snapshot() const;
  // What this process's tensors take of `device`, which must be known; nullopt on the CPU, which
  // does not count them.
  std::optional<int64_t> AllocatedBytes(const DeviceId& device) const;

  // The dtype layers compute in on `device` for weights stored in the file as `file_dtype`: the
  // --compute_dtype flag, or for "auto" bfloat16 on CPUs with AVX512-BF16 or AMX and float32 on
  // others; on a CUDA device the file's dtype if it is a 16-bit float, else float32. A CPU computes
  // in float32 where it would only emulate the 16-bit type asked for, some ten times slower.
  // A simulated device computes on the CPU and follows its rule.
  c10::ScalarType ComputeDtype(const DeviceId& device, c10::ScalarType file_dtype) const;
  // The dtype in which `device`, when it is a CPU that computes, stores such weights: the flag's,
  // even where the layers then compute in float32, for half the memory; else ComputeDtype.
  c10::ScalarType StorageDtype(const DeviceId& device, c10::ScalarType file_dtype) const;

 private:
  DeviceManager() = default;

  absl::Status AddSimulatedDevices(const std::string& flag);
  void AddCudaDevices();
  // `index` is LibTorch's and the position in devices_.
  DeviceSnapshot SimulatedSnapshot(int index) const;
  DeviceSnapshot CudaSnapshot(int index) const;
  DeviceSnapshot CpuSnapshot() const;

  std::vector<DeviceId> devices_;
  bool simulated_ = false;
  std::map<DeviceId, double> given_flops_;
  std::vector<CudaDevice> cuda_devices_;
  std::string warning_;
  std::optional<int64_t> cpu_total_override_;
  std::optional<c10::ScalarType> compute_dtype_;  // nullopt: auto
  HostProcessor processor_;
};

}  // namespace distorch

#endif  // LIB_DEVICE_DEVICE_MANAGER_H_
