// What UNet, text encoders and VAE have in common: weights in a store, and a device and type to
// compute in.
#ifndef LIB_NN_COMPONENT_H_
#define LIB_NN_COMPONENT_H_

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "lib/distorch/weight_store.h"

namespace distorch::nn {

struct ComputeTarget {
  c10::Device device = c10::Device(c10::DeviceType::CPU);
  c10::ScalarType dtype = c10::ScalarType::Float;
};

// A skeleton when constructed; usable once its store is placed and set_compute was called. Then
// immutable and thread-safe. The checkpoint's TensorIndex must outlive it.
class Component {
 public:
  explicit Component(const NamedTensors* tensors) : store_(tensors) {}
  Component(const Component&) = delete;
  Component& operator=(const Component&) = delete;
  virtual ~Component() = default;

  WeightStore& store() { return store_; }
  const WeightStore& store() const { return store_; }
  const ComputeTarget& compute() const { return compute_; }
  void set_compute(ComputeTarget compute) { compute_ = compute; }

 private:
  WeightStore store_;
  ComputeTarget compute_;
};

}  // namespace distorch::nn

#endif  // LIB_NN_COMPONENT_H_
