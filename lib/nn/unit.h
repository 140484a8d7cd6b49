// Units: the parts of a network that may run where their weights lie instead of where the network
// does. Activations move from device to device with them; layers need not know, since weights come
// to where the activations are.
#ifndef LIB_NN_UNIT_H_
#define LIB_NN_UNIT_H_

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "lib/nn/layers.h"

namespace distorch::nn {

/// A tensor that many units read: copied to each of their devices once.
class Shared {
 public:
  explicit Shared(at::Tensor tensor) : copies_{std::move(tensor)} {}

 private:
  friend class Pass;
  std::vector<at::Tensor> copies_;  // the original first
};

/// One pass through a network, from the device of its input and back to it. What crosses links on
/// the way is counted by the units' meter. Throws as LibTorch does, also out-of-memory.
class Pass {
 public:
  explicit Pass(const at::Tensor& input) : home_(input.device()) {}

  // What a unit is given, on the device it runs on. A variable is moved there itself, so that a
  // unit may change it; undefined tensors, and what is no tensor, are passed on as they are.
  at::Tensor& Enter(const ExecutionUnit& unit, at::Tensor& activations);
  at::Tensor Enter(const ExecutionUnit& unit, at::Tensor&& activations);
  at::Tensor Enter(const ExecutionUnit& unit, const at::Tensor& activations) = delete;
  const at::Tensor& Enter(const ExecutionUnit& unit, Shared& shared);
  template <typename Other>
  const Other& Enter(const ExecutionUnit& /*unit*/, const Other& other) {
    return other;
  }

  // `activations` on the input's device.
  at::Tensor Home(at::Tensor activations);

 private:
  c10::Device DeviceOf(const ExecutionUnit& unit);
  at::Tensor Moved(const at::Tensor& tensor, const c10::Device& device) const;

  const c10::Device home_;
  TransferMeter* meter_ = nullptr;  // of the units so far that have a device of their own
};

/// Layers that are one unit: all slots that they declare.
template <typename Layers>
class Unit {
 public:
  // The name of `scope` is the unit's.
  template <typename... Args>
  explicit Unit(const Scope& scope, Args&&... args)
      : unit_(scope.store().BeginUnit(scope.name())), layers_(scope, std::forward<Args>(args)...) {
    scope.store().EndUnit();
  }

  // Layers::Forward on the unit's device, where its result stays.
  template <typename... Inputs>
  auto Forward(Pass& pass, Inputs&&... inputs) const {
    return layers_.Forward(pass.Enter(*unit_, std::forward<Inputs>(inputs))...);
  }

 private:
  const ExecutionUnit* unit_;
  Layers layers_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_UNIT_H_
