// An adapter's change of one parameter, as a slot applies it.
#ifndef LIB_LORA_ADAPTER_PATCH_H_
#define LIB_LORA_ADAPTER_PATCH_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "lib/distorch/weight_patch.h"
#include "lib/lora/adapter_file.h"
#include "lib/lora/algorithms.h"

namespace distorch::lora {

// Which rows of a parameter an adapter's module is, as lib/models/diffusers_names.h says.
struct Rows {
  int64_t first = 0, count = 0;  // count 0: all
  bool swapped_halves = false;
};

// W + strength · scale · ΔW, or with magnitudes m (Liu et al., "DoRA", 2024)
// W + strength · (m (W + scale · ΔW) / |W| − W), where |W| is each row's norm, or, where m has one
// magnitude an input, |W + scale · ΔW| of each input: as LyCORIS's two variants train.
class AdapterPatch : public WeightPatch {
 public:
  struct Options {
    const Algorithm* algorithm = nullptr;
    Rows rows;
    double scale = 1;  // alpha / rank
    double strength = 1;
  };
  // `tensors` are best on the compute device, but are brought to wherever a parameter is; they are
  // of any floating-point type, and have passed the algorithm's check; so has the magnitude, if
  // any, CheckMagnitude.
  AdapterPatch(const Options& options, ByPart<at::Tensor> tensors);

  at::Tensor Apply(at::Tensor parameter) const override;

 private:
  // Of the rows that the module is, in place.
  void Change(at::Tensor weight) const;

  const Options options_;
  const ByPart<at::Tensor> tensors_;
};

// INVALID_ARGUMENT unless DoRA's `magnitude` has one value for each row or each input of a weight
// of `shape`.
absl::Status CheckMagnitude(const TensorInfo& magnitude, const std::vector<int64_t>& shape);

}  // namespace distorch::lora

#endif  // LIB_LORA_ADAPTER_PATCH_H_
