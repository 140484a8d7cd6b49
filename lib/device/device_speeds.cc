#include "lib/device/device_speeds.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <set>

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

double MeasureFlops(const at::Device& device, at::ScalarType dtype) {
  return ProductFlops([&](int64_t side) {
    const at::Tensor a = at::ones({side, side}, at::TensorOptions(device).dtype(dtype));
    at::Tensor product = at::empty_like(a);
    return LeastSeconds(device, [&] { at::matmul_out(product, a, a); });
  });
}

double MeasureBytes(const at::Device& device) {
  const int64_t copied = device.is_cpu() ? 16 << 20 : 128 << 20;
  const at::Tensor from = at::zeros({copied}, at::TensorOptions(device).dtype(at::kByte));
  at::Tensor to = at::empty_like(from);
  return 2 * static_cast<double>(copied) / LeastSeconds(device, [&] { to.copy_(from); });
}

}  // namespace

double ProductFlops(absl::FunctionRef<double(int64_t side)> seconds_of) {
  constexpr int64_t kSmallest = 128, kLargest = 4096;
  constexpr double kEnoughSeconds = 2e-3;  // fills the device
  for (int64_t side = kSmallest;; side *= 2) {
    const double seconds = seconds_of(side);
    const auto n = static_cast<double>(side);
    if (seconds >= kEnoughSeconds || side == kLargest) return 2 * n * n * n / seconds;
  }
}

absl::Status DeviceSpeeds::MeasureAll() {
  std::set<c10::ScalarType> dtypes;
  for (const DeviceId& device : devices_.devices()) {
    for (const c10::ScalarType file_dtype : {c10::kFloat, c10::kHalf, c10::kBFloat16})
      dtypes.insert(devices_.ComputeDtype(device, file_dtype));
  }
  for (const c10::ScalarType dtype : dtypes) {
    for (const DeviceId& device : devices_.devices()) RETURN_IF_ERROR(Of(device, dtype).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<DeviceSpeed> DeviceSpeeds::Of(const DeviceId& device, c10::ScalarType dtype) {
  if (const double given = devices_.given_flops(device); given > 0) return DeviceSpeed{given};
  if (devices_.simulated() && !device.is_cpu()) return Of(DeviceId{}, dtype);
  absl::MutexLock lock(&mutex_);
  const auto known = measured_.find({device, dtype});
  if (known != measured_.end()) return known->second;
  ASSIGN_OR_RETURN(
      const DeviceSpeed speed, RunTorchOr<DeviceSpeed>([&] {
        const at::Device torch_device = devices_.TorchDevice(device);
        return DeviceSpeed{MeasureFlops(torch_device, dtype), MeasureBytes(torch_device)};
      }));
  measured_[{device, dtype}] = speed;
  return speed;
}

std::size_t DeviceSpeeds::measured() const {
  absl::MutexLock lock(&mutex_);
  return measured_.size();
}

}  // namespace distorch
