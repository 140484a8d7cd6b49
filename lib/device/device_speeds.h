// How fast the devices of this process compute: measured, or given by --simulate_devices.
#ifndef LIB_DEVICE_DEVICE_SPEEDS_H_
#define LIB_DEVICE_DEVICE_SPEEDS_H_

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/device/device_manager.h"
#include "lib/device/device_speed.h"

namespace distorch {

// Thread-safe.
class DeviceSpeeds {
 public:
  // `devices` outlives it.
  explicit DeviceSpeeds(const DeviceManager& devices) : devices_(devices) {}

  // Asks about every device in every type that one of them computes in, so that no request has to
  // wait for that. The status of the first device that fails.
  absl::Status MeasureAll() ABSL_LOCKS_EXCLUDED(mutex_);

  // Of matrix products in `dtype`. The first question about a device and a type takes some tens of
  // milliseconds, when what else the machine does shows in the answer. A simulated device is as
  // fast as it was given, its memory without limit; else as fast as the CPU, which is what computes
  // for it. The status of the device when it fails.
  absl::StatusOr<DeviceSpeed> Of(const DeviceId& device, c10::ScalarType dtype)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // How many devices and types were measured so far.
  std::size_t measured() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const DeviceManager& devices_;
  mutable absl::Mutex mutex_;
  std::map<std::pair<DeviceId, c10::ScalarType>, DeviceSpeed> measured_ ABSL_GUARDED_BY(mutex_);
};

// Flops per second of products of two square matrices, each of which takes `seconds_of(side)`.
// Their side doubles, from 128 to at most 4096, until a product takes 2 ms: a type that the device
// has no instructions for, a hundred times slower than others, takes no longer to measure than they
// do.
double ProductFlops(absl::FunctionRef<double(int64_t side)> seconds_of);

}  // namespace distorch

#endif  // LIB_DEVICE_DEVICE_SPEEDS_H_
