// How fast bytes cross from one device to another: measured at start
// (lib/device/measure_links.h), or given by --link for simulated devices.
#ifndef LIB_DEVICE_LINKS_H_
#define LIB_DEVICE_LINKS_H_

#include <cstdint>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
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

// "cuda:0-cpu=12GB/s,20us;cuda:0->cuda:1=300GB/s": A-B is both directions, A->B one; then the rate
// in B/s, kB/s, MB/s, GB/s or TB/s (powers of 1000) or KiB/s to TiB/s (of 1024), and the latency of
// a transfer, 0 where it is left out. The ends are among `devices`, or disk. Empty text: no links.
// INVALID_ARGUMENT quotes the piece that is wrong and says what is allowed.
absl::StatusOr<LinkTable> ParseLinks(std::string_view text, const std::vector<DeviceId>& devices);

}  // namespace distorch

#endif  // LIB_DEVICE_LINKS_H_
