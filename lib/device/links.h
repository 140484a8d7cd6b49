// How fast bytes cross from one device to another: measured at start, or given by --link for
// simulated devices.
#ifndef LIB_DEVICE_LINKS_H_
#define LIB_DEVICE_LINKS_H_

#include <cstdint>
#include <map>
#include <utility>

#include "lib/device/device_id.h"

namespace distorch {

struct LinkSpeed {
  double bytes_per_second = 0;  // above 0
  double latency_seconds = 0;   // of each transfer

  double Seconds(int64_t bytes) const {
    return latency_seconds + static_cast<double>(bytes) / bytes_per_second;
  }
};

// The links of a process, by direction. A pair without an entry is as fast as memory: its transfers
// take no time.
class LinkTable {
 public:
  void Set(const DeviceId& from, const DeviceId& to, LinkSpeed speed);
  const LinkSpeed* Find(const DeviceId& from, const DeviceId& to) const;  // null: no entry
  // What a transfer takes; 0 within a device and without an entry.
  double Seconds(const DeviceId& from, const DeviceId& to, int64_t bytes) const;

  const std::map<std::pair<DeviceId, DeviceId>, LinkSpeed>& entries() const { return entries_; }

 private:
  std::map<std::pair<DeviceId, DeviceId>, LinkSpeed> entries_;
};

}  // namespace distorch

#endif  // LIB_DEVICE_LINKS_H_
