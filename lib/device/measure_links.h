// What the links between real devices carry.
#ifndef LIB_DEVICE_MEASURE_LINKS_H_
#define LIB_DEVICE_MEASURE_LINKS_H_

#include "absl/status/statusor.h"
#include "lib/device/device_manager.h"
#include "lib/device/links.h"

namespace distorch {

// What a disk is taken to give where nobody has measured it: a middling NVMe drive's.
inline constexpr LinkSpeed kAssumedDisk{2e9, 100e-6};

// Measures with copies between each accelerator and page-locked host memory, and between each two
// accelerators, both ways: the median of a few, some milliseconds a link. disk -> cpu is
// kAssumedDisk: it depends on the file. Nothing for simulated devices. The status of the device
// that failed.
absl::StatusOr<LinkTable> MeasureLinks(const DeviceManager& devices);

}  // namespace distorch

#endif  // LIB_DEVICE_MEASURE_LINKS_H_
