// What an adapter file holds: for each module that it changes, a few tensors whose names end in
// what they are ("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"). Names as kohya,
// LyCORIS, diffusers, PEFT and OneTrainer write them.
#ifndef LIB_LORA_ADAPTER_FILE_H_
#define LIB_LORA_ADAPTER_FILE_H_

#include <array>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch::lora {

// What a tensor is to its module. The letters are those of the papers (see algorithms.h).
enum class Part {
  kUp,         // LoRA: B, [out, rank]
  kDown,       // LoRA: A, [rank, in, …]
  kMid,        // LoCon: the Tucker core between them
  kReshape,    // the shape that the weight has after the adapter
  kAlpha,      // every kind: a scalar; the change is scaled by alpha / rank
  kDoraScale,  // every kind: DoRA's magnitudes
  kLohaW1A,    // LoHa
  kLohaW1B,
  kLohaW2A,
  kLohaW2B,
  kLohaT1,
  kLohaT2,
  kLokrW1,  // LoKr
  kLokrW1A,
  kLokrW1B,
  kLokrW2,
  kLokrW2A,
  kLokrW2B,
  kLokrT2,
  kGloraA1,  // GLoRA
  kGloraA2,
  kGloraB1,
  kGloraB2,
  kDiff,      // the whole difference of the weight
  kDiffBias,  // and of the bias
  kSet,       // the weight itself
  kCount,
};

template <typename T>
using ByPart = std::array<T, static_cast<size_t>(Part::kCount)>;

// One module's tensors; null where the file has none. Points into the file's index.
class ModuleTensors {
 public:
  const TensorInfo* operator[](Part part) const { return tensors_[static_cast<size_t>(part)]; }
  bool has(Part part) const { return (*this)[part] != nullptr; }
  // False when there is one already.
  bool Set(Part part, const TensorInfo* tensor);
  const ByPart<const TensorInfo*>& all() const { return tensors_; }

 private:
  ByPart<const TensorInfo*> tensors_{};
};

struct AdapterModules {
  absl::flat_hash_map<std::string, ModuleTensors> by_name;  // without the ending
  // Tensors whose names end in nothing we know, or that a module has twice under two endings.
  std::vector<const TensorInfo*> unknown;
};

// `index` must outlive the result. INVALID_ARGUMENT when nothing in it is an adapter's: it says
// what the first names are.
absl::StatusOr<AdapterModules> ReadAdapterModules(const TensorIndex& index);

}  // namespace distorch::lora

#endif  // LIB_LORA_ADAPTER_FILE_H_
