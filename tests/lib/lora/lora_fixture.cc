#include "tests/lib/lora/lora_fixture.h"

#include <ATen/ATen.h>

namespace distorch {
namespace {

TensorIndex IndexOf(const std::vector<SlotComponent::Module>& modules) {
  std::vector<TensorInfo> tensors;
  for (const SlotComponent::Module& module : modules) {
    tensors.push_back({module.name + ".weight", DType::kF32, module.weight_shape});
    tensors.push_back({module.name + ".bias", DType::kF32, {module.weight_shape[0]}});
  }
  return TensorIndex(std::move(tensors), {});
}

}  // namespace

SlotComponent::SlotComponent(std::vector<Module> modules)
    : index_(IndexOf(modules)),
      meter_(std::make_unique<TransferMeter>(std::vector{DeviceId{"cpu", 0}})) {
  for (const TensorInfo& tensor : index_.tensors())
    tensors_.emplace(tensor.name, NamedTensor(&tensor));
  store_ = std::make_unique<WeightStore>(&tensors_);
  for (const Module& module : modules)
    store_->Add(module.name, module.weight_shape, module.weight_shape[0]);
}

void SlotComponent::Fill(size_t i, at::Tensor weight, at::Tensor bias,
                         const StorageFormat& format) {
  slot(i)->Fill({std::move(weight), std::move(bias)}, {format, StorageFormat()}, meter_.get());
}

}  // namespace distorch
