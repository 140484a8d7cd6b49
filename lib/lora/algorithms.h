// The kinds of adapters: how a module's tensors make up the change of its weight.
//   LoRA   Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021): B A
//   LoCon  the same of a convolution, with a Tucker core between B and A where there is one
//   LoHa   Hyeon-Woo et al., "FedPara" (2021): (B1 A1) ∘ (B2 A2)
//   LoKr   Edalati et al., "KronA" (2022): W1 ⊗ W2, each whole or a product of two
//   GLoRA  Chavan et al., "One-for-All" (2023): W A + B, A and B of low rank
//   full   the difference of the weight, or the weight itself
// LoHa, LoKr and GLoRA are laid out as LyCORIS (Yeh et al., 2023) does.
#ifndef LIB_LORA_ALGORITHMS_H_
#define LIB_LORA_ALGORITHMS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/lora/adapter_file.h"

namespace distorch::lora {

struct Algorithm {
  std::string_view name;
  // A module that has one of these is of this kind.
  std::vector<Part> marks;
  // All that it may have.
  std::vector<Part> parts;
  // Whether `tensors` make up a change of a weight of `shape`: everything that `change` computes is
  // then no larger than a few times the weight and the tensors. The rank that alpha is divided by,
  // or 0 where alpha has no meaning. INVALID_ARGUMENT naming the tensor that does not fit.
  absl::StatusOr<int64_t> (*check)(const ModuleTensors& tensors, const std::vector<int64_t>& shape);
  // The change, before alpha and strength, in float32 and with as many elements as `weight`
  // (float32) has. `tensors` are float32 on the weight's device and have passed `check`.
  at::Tensor (*change)(const ByPart<at::Tensor>& tensors, const at::Tensor& weight);
  // The change replaces the weight.
  bool replaces = false;
};

// The kind of the weight's change in `tensors`; null when they have none (a bias alone).
// INVALID_ARGUMENT when they are of two kinds, or there is nothing but an alpha.
absl::StatusOr<const Algorithm*> FindAlgorithm(const ModuleTensors& tensors);

// INVALID_ARGUMENT unless `tensor` has `shape`.
absl::Status CheckShape(const TensorInfo& tensor, const std::vector<int64_t>& shape);

}  // namespace distorch::lora

#endif  // LIB_LORA_ALGORITHMS_H_
