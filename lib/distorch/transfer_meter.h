// Counts what crosses the links between devices, and what lies in staging on them. Lock-free reads
// and writes.
#ifndef LIB_DISTORCH_TRANSFER_METER_H_
#define LIB_DISTORCH_TRANSFER_METER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "lib/device/device_id.h"

namespace distorch {

// Devices are known by their position in the list given at construction; what comes after the first
// kMaxDevices is unknown, and nothing is counted for unknown positions (-1 included). Thread-safe.
// The counters of one link are read one by one: a transfer under way may show in its bytes and not
// yet in its seconds.
class TransferMeter {
 public:
  static constexpr int kMaxDevices = 32;

  struct Link {
    DeviceId from, to;
    int64_t bytes = 0;
    // Of the transfers' time: what computing waited for, and what went on while it computed.
    double exposed_seconds = 0, overlapped_seconds = 0;
  };

  explicit TransferMeter(std::vector<DeviceId> devices);

  int IndexOf(const DeviceId& device) const;  // -1 when unknown
  int cpu_index() const { return cpu_index_; }
  void AddTransfer(int from, int to, int64_t bytes, int64_t exposed_ns, int64_t overlapped_ns = 0);
  void AddStaging(int device, int64_t delta_bytes);

  std::vector<Link> Links() const;  // those used so far, by position
  int64_t staging_bytes(int device) const;
  int64_t peak_staging_bytes(int device) const;
  const std::vector<DeviceId>& devices() const { return devices_; }

 private:
  struct Counter {
    std::atomic<int64_t> bytes{0}, exposed_ns{0}, overlapped_ns{0};
  };
  bool Known(int device) const;

  const std::vector<DeviceId> devices_;
  const int cpu_index_;
  std::array<std::array<Counter, kMaxDevices>, kMaxDevices> links_;
  std::array<std::atomic<int64_t>, kMaxDevices> staging_{}, peak_staging_{};
};

}  // namespace distorch

#endif  // LIB_DISTORCH_TRANSFER_METER_H_
