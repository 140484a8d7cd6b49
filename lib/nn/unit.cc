#include "lib/nn/unit.h"

#include <chrono>

namespace distorch::nn {
namespace {

at::Tensor MoveTo(const c10::Device& device, const at::Tensor& tensor, TransferMeter* meter) {
  if (!tensor.defined() || tensor.device() == device) return tensor;
  const auto start = std::chrono::steady_clock::now();
  at::Tensor moved = tensor.to(device);
  const std::chrono::nanoseconds taken = std::chrono::steady_clock::now() - start;
  const size_t devices = meter->devices().size();
  meter->AddTransfer(static_cast<int>(DeviceIndex(tensor.device(), devices)),
                     static_cast<int>(DeviceIndex(device, devices)),
                     static_cast<int64_t>(moved.nbytes()), taken.count());
  return moved;
}

}  // namespace

c10::Device Pass::DeviceOf(const ExecutionUnit& unit) {
  if (!unit.device) return home_;
  meter_ = unit.meter;
  return *unit.device;
}

at::Tensor& Pass::Enter(const ExecutionUnit& unit, at::Tensor& activations) {
  activations = MoveTo(DeviceOf(unit), activations, meter_);
  return activations;
}

at::Tensor Pass::Enter(const ExecutionUnit& unit, at::Tensor&& activations) {
  return MoveTo(DeviceOf(unit), std::exchange(activations, {}), meter_);
}

const at::Tensor& Pass::Enter(const ExecutionUnit& unit, Shared& shared) {
  const c10::Device device = DeviceOf(unit);
  std::vector<at::Tensor>& copies = shared.copies_;
  for (const at::Tensor& copy : copies) {
    if (copy.device() == device) return copy;
  }
  return copies.emplace_back(MoveTo(device, copies.front(), meter_));
}

at::Tensor Pass::Home(at::Tensor activations) { return MoveTo(home_, activations, meter_); }

}  // namespace distorch::nn
