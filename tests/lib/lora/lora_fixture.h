// Components of a few slots, to match adapters with.
#ifndef TESTS_LIB_LORA_LORA_FIXTURE_H_
#define TESTS_LIB_LORA_LORA_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/checkpoint/tensor_index.h"
#include "lib/distorch/transfer_meter.h"
#include "lib/distorch/weight_store.h"

namespace distorch {

// A store with one slot for each module, in this order; each has a bias of weight_shape[0].
class SlotComponent {
 public:
  struct Module {
    std::string name;
    std::vector<int64_t> weight_shape;
  };
  explicit SlotComponent(std::vector<Module> modules);

  const WeightStore& store() const { return *store_; }
  WeightSlot* slot(size_t i) const { return store_->slots()[i].get(); }
  // Puts tensors into slot `i`; `format` is the weight's.
  void Fill(size_t i, at::Tensor weight, at::Tensor bias, const StorageFormat& format = {});

 private:
  TensorIndex index_;
  NamedTensors tensors_;
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<TransferMeter> meter_;
};

}  // namespace distorch

#endif  // TESTS_LIB_LORA_LORA_FIXTURE_H_
