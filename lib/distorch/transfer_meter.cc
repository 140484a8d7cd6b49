#include "lib/distorch/transfer_meter.h"

#include <algorithm>
#include <utility>

namespace distorch {
namespace {

std::vector<DeviceId> FirstDevices(std::vector<DeviceId> devices) {
  devices.resize(std::min(devices.size(), static_cast<size_t>(TransferMeter::kMaxDevices)));
  return devices;
}

}  // namespace

TransferMeter::TransferMeter(std::vector<DeviceId> devices)
    : devices_(FirstDevices(std::move(devices))), cpu_index_(IndexOf(DeviceId{})) {}

int TransferMeter::IndexOf(const DeviceId& device) const {
  const auto it = std::find(devices_.begin(), devices_.end(), device);
  return it == devices_.end() ? -1 : static_cast<int>(it - devices_.begin());
}

void TransferMeter::AddTransfer(int from, int to, int64_t bytes, int64_t exposed_ns,
                                int64_t overlapped_ns) {
  if (!Known(from) || !Known(to)) return;
  Counter& link = links_[from][to];
  link.bytes.fetch_add(bytes, std::memory_order_relaxed);
  link.exposed_ns.fetch_add(exposed_ns, std::memory_order_relaxed);
  link.overlapped_ns.fetch_add(overlapped_ns, std::memory_order_relaxed);
}

void TransferMeter::AddStaging(int device, int64_t delta_bytes) {
  if (!Known(device)) return;
  const int64_t now =
      staging_[device].fetch_add(delta_bytes, std::memory_order_relaxed) + delta_bytes;
  std::atomic<int64_t>& peak = peak_staging_[device];
  int64_t seen = peak.load(std::memory_order_relaxed);
  while (now > seen && !peak.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
  }
}

std::vector<TransferMeter::Link> TransferMeter::Links() const {
  std::vector<Link> links;
  for (size_t from = 0; from < devices_.size(); ++from) {
    for (size_t to = 0; to < devices_.size(); ++to) {
      const Counter& link = links_[from][to];
      const int64_t bytes = link.bytes.load(std::memory_order_relaxed);
      const int64_t exposed_ns = link.exposed_ns.load(std::memory_order_relaxed);
      const int64_t overlapped_ns = link.overlapped_ns.load(std::memory_order_relaxed);
      if (bytes == 0 && exposed_ns == 0 && overlapped_ns == 0) continue;
      links.push_back({devices_[from], devices_[to], bytes, static_cast<double>(exposed_ns) * 1e-9,
                       static_cast<double>(overlapped_ns) * 1e-9});
    }
  }
  return links;
}

int64_t TransferMeter::staging_bytes(int device) const {
  return Known(device) ? staging_[device].load(std::memory_order_relaxed) : 0;
}

int64_t TransferMeter::peak_staging_bytes(int device) const {
  return Known(device) ? peak_staging_[device].load(std::memory_order_relaxed) : 0;
}

bool TransferMeter::Known(int device) const {
  return device >= 0 && device < static_cast<int>(devices_.size());
}

}  // namespace distorch
