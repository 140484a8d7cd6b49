// Names of devices as users write them: "cpu", "cuda:0"; and "disk", the checkpoint's own file, for
// weights that take no memory.
#ifndef LIB_DEVICE_DEVICE_ID_H_
#define LIB_DEVICE_DEVICE_ID_H_

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

namespace distorch {

struct DeviceId {
  std::string type = "cpu";
  int index = 0;

  bool is_cpu() const { return type == "cpu"; }
  bool is_disk() const { return type == "disk"; }
  // "cpu", "disk" or "cuda:0".
  std::string ToString() const;

  // Accelerators by type and index, then "cpu", then "disk": the order in which the planner fills
  // devices.
  friend std::strong_ordering operator<=>(const DeviceId& a, const DeviceId& b);
  friend bool operator==(const DeviceId&, const DeviceId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const DeviceId& id) {
    return H::combine(std::move(h), id.type, id.index);
  }
};

inline const DeviceId kDisk{"disk", 0};

inline constexpr int kMaxDeviceIndex = 127;  // LibTorch's limit

// "cpu", "disk", "cuda:1", "mps": lower-case letters, and for accelerators an index of
// 0…kMaxDeviceIndex without leading zeros; a bare accelerator name means index 0. INVALID_ARGUMENT
// for anything else, "cpu:0", "disk:0" and surrounding spaces included.
absl::StatusOr<DeviceId> ParseDeviceId(std::string_view text);

// What the planner needs to know of a device.
struct DeviceMemory {
  DeviceId device;
  int64_t total_bytes = 0;
};

// "8GiB", "500MB", "2.5 g", "123456": units b, k, m, g, t are powers of 1024, with or without the
// "b" or "ib", in any case; parts of a byte are dropped. Surrounding spaces are ignored.
// INVALID_ARGUMENT for a malformed, negative or overflowing amount.
absl::StatusOr<int64_t> ParseByteSize(std::string_view text);

// "1.62 GiB", "96 B": for messages and tables.
std::string FormatBytes(int64_t bytes);

}  // namespace distorch

#endif  // LIB_DEVICE_DEVICE_ID_H_
