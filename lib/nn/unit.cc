#include "lib/nn/unit.h"

#include <chrono>

namespace distorch::nn {

c10::Device Pass::DeviceOf(const ExecutionUnit& unit) {
  if (!unit.device) return home_;
  meter_ = unit.meter;
  return *unit.device;
}

at::Tensor Pass::Moved(const at::Tensor& tensor, const c10::Device& device) const {
  if (!tensor.defined() || tensor.device() == device) return tensor;
  const auto start = std::chrono::steady_clock::now();
  at::Tensor moved = tensor.to(device);
  const std::chrono::nanoseconds taken = std::chrono::steady_clock::now() - start;
  meter_->AddTransfer(MeterIndex(*meter_, tensor.device()), MeterIndex(*meter_, device),
                      static_cast<int64_t>(moved.nbytes()), taken.count());
  return moved;
}

at::Tensor& Pass::Enter(const ExecutionUnit& unit, at::Tensor& activations) {
  const c10::Device device = DeviceOf(unit);
  activations = Moved(activations, device);
  return activations;
}

at::Tensor Pass::Enter(const ExecutionUnit& unit, at::Tensor&& activations) {
  const c10::Device device = DeviceOf(unit);
  return Moved(std::exchange(activations, {}), device);
}

const at::Tensor& Pass::Enter(const ExecutionUnit& unit, Shared& shared) {
  const c10::Device device = DeviceOf(unit);
  std::vector<at::Tensor>& copies = shared.copies_;
  for (const at::Tensor& copy : copies) {
    if (copy.device() == device) return copy;
  }
  return copies.emplace_back(Moved(copies.front(), device));
}

at::Tensor Pass::Home(at::Tensor activations) { return Moved(activations, home_); }

}  // namespace distorch::nn
