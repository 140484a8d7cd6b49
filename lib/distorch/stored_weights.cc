#include "lib/distorch/stored_weights.h"

#include <ATen/ATen.h>

#include <chrono>

#include "lib/base/status_error.h"

namespace distorch {
namespace {

class Stopwatch {
 public:
  // Seconds since it was made, or since the last lap.
  double Lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(start_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// The CPU's view of a contiguous tensor in host memory.
at::Tensor HostView(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  return at::from_blob(tensor.data_ptr(), tensor.sizes(),
                       at::TensorOptions().dtype(tensor.scalar_type()));
}

// Page-locked where there are CUDA devices: freed memory of this kind waits for the copies from it.
at::Tensor HostBuffer(const at::Tensor& like, const at::Device& for_device) {
  return at::empty(
      like.sizes(),
      at::TensorOptions().dtype(like.scalar_type()).pinned_memory(for_device.is_cuda()));
}

void CopyAll(std::span<const at::Tensor> from, std::span<const at::Tensor> to, bool non_blocking) {
  for (size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i], non_blocking);
}

void ReadOrThrow(const WeightSource& source, std::span<const at::Tensor> into) {
  const absl::Status status = source.Read(into);
  if (!status.ok()) throw StatusError(status);
}

}  // namespace

int64_t StoredWeights::bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

bool IsHostMemory(const at::Device& device) {
  return device.is_cpu() || device.type() == c10::DeviceType::PrivateUse1;
}

std::vector<at::Tensor> EmptyLike(const StoredWeights& stored, const at::Device& device) {
  std::vector<at::Tensor> tensors;
  for (const at::Tensor& tensor : stored.tensors) {
    tensors.push_back(
        at::empty_strided(tensor.sizes(), tensor.strides(),
                          at::TensorOptions().dtype(tensor.scalar_type()).device(device)));
  }
  return tensors;
}

std::array<double, 2> CopyWeights(const StoredWeights& from, std::span<const at::Tensor> to,
                                  const CopyOptions& options) {
  Stopwatch watch;
  if (to.empty()) return {0, 0};
  const at::Device device = to.front().device();
  if (!from.on_disk() && !options.through_host) {
    CopyAll(from.tensors, to, options.non_blocking);
    return {watch.Lap(), 0};
  }
  std::vector<at::Tensor> host;
  for (const at::Tensor& tensor : to)
    host.push_back(IsHostMemory(device) ? HostView(tensor) : HostBuffer(tensor, device));
  if (from.on_disk()) {
    ReadOrThrow(*from.source, host);
  } else {
    CopyAll(from.tensors, host, /*non_blocking=*/false);
  }
  const double first = watch.Lap();
  if (!IsHostMemory(device)) CopyAll(host, to, options.non_blocking);
  return {first, watch.Lap()};
}

}  // namespace distorch
