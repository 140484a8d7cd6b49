#include "lib/device/device_speeds.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/device/synchronize.h"

namespace distorch {
namespace {

constexpr int kRuns = 3;

// The least time of a few runs after one that warms up.
template <typename Work>
double LeastSeconds(const at::Device& device, Work work) {
  double least = 0;
  for (int run = 0; run <= kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    work();
    Synchronize(device);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (run == 1 || (run > 1 && seconds < least)) least = seconds;
  }
  return std::max(least, 1e-9);
}

DeviceSpeed Measure(const at::Device& device, at::ScalarType dtype) {
  // Large enough to fill the device, small enough to take a few milliseconds.
  const int64_t side = device.is_cpu() ? 768 : 4096;
  const int64_t copied = device.is_cpu() ? 16 << 20 : 128 << 20;
  const at::Tensor a = at::ones({side, side}, at::TensorOptions(device).dtype(dtype));
  at::Tensor product = at::empty_like(a);
  const at::Tensor from = at::zeros({copied}, at::TensorOptions(device).dtype(at::kByte));
  at::Tensor to = at::empty_like(from);
  const double multiplying = LeastSeconds(device, [&] { at::matmul_out(product, a, a); });
  const double copying = LeastSeconds(device, [&] { to.copy_(from); });
  const auto n = static_cast<double>(side);
  return {2 * n * n * n / multiplying, 2 * static_cast<double>(copied) / copying};
}

}  // namespace

absl::StatusOr<DeviceSpeed> DeviceSpeeds::Of(const DeviceId& device, c10::ScalarType dtype) {
  if (const double given = devices_.given_flops(device); given > 0) return DeviceSpeed{given};
  if (devices_.simulated() && !device.is_cpu()) return Of(DeviceId{}, dtype);
  absl::MutexLock lock(&mutex_);
  const auto known = measured_.find({device, dtype});
  if (known != measured_.end()) return known->second;
  ASSIGN_OR_RETURN(const DeviceSpeed speed, RunTorchOr<DeviceSpeed>([&] {
                     return Measure(devices_.TorchDevice(device), dtype);
                   }));
  measured_[{device, dtype}] = speed;
  return speed;
}

}  // namespace distorch
