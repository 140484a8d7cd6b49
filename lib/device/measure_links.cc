#include "lib/device/measure_links.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "lib/base/torch_status.h"
#include "lib/device/synchronize.h"

namespace distorch {
namespace {

constexpr int64_t kLargeBytes = 32 << 20;
constexpr int64_t kSmallBytes = 4 << 10;
constexpr int kCopies = 5;

at::Tensor Buffer(const at::Device& device, bool pinned) {
  return at::zeros({kLargeBytes},
                   at::TensorOptions(at::kByte).device(device).pinned_memory(pinned));
}

// The median time of copying the first `bytes`; one more copy goes before, for whatever is only
// done once.
double CopySeconds(const at::Tensor& from, const at::Tensor& to, int64_t bytes) {
  std::array<double, kCopies + 1> seconds{};
  for (double& time : seconds) {
    const auto start = std::chrono::steady_clock::now();
    to.narrow(0, 0, bytes).copy_(from.narrow(0, 0, bytes), /*non_blocking=*/true);
    Synchronize(from.device());
    Synchronize(to.device());
    time = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  std::sort(seconds.begin() + 1, seconds.end());
  return seconds[1 + kCopies / 2];
}

LinkSpeed Measure(const at::Tensor& from, const at::Tensor& to) {
  const double latency = CopySeconds(from, to, kSmallBytes);
  const double large = CopySeconds(from, to, kLargeBytes);
  constexpr double kNoTime = 1e-9;
  return {static_cast<double>(kLargeBytes) / std::max(kNoTime, large - latency), latency};
}

LinkTable MeasureAll(const DeviceManager& devices) {
  LinkTable links;
  links.Set(kDisk, DeviceId{}, kAssumedDisk);
  std::vector<at::Tensor> buffers;
  const bool accelerators = devices.devices().size() > 1;
  for (const DeviceId& device : devices.devices()) {
    if (accelerators) buffers.push_back(Buffer(devices.TorchDevice(device), device.is_cpu()));
  }
  for (size_t from = 0; from < buffers.size(); ++from) {
    for (size_t to = 0; to < buffers.size(); ++to) {
      if (from == to) continue;
      links.Set(devices.devices()[from], devices.devices()[to],
                Measure(buffers[from], buffers[to]));
    }
  }
  return links;
}

}  // namespace

absl::StatusOr<LinkTable> MeasureLinks(const DeviceManager& devices) {
  if (devices.simulated()) return LinkTable();
  return RunTorchOr<LinkTable>([&]() -> absl::StatusOr<LinkTable> { return MeasureAll(devices); });
}

}  // namespace distorch
