// Adapters on components: what of a file fits which parameters, and its patches in their slots.
#ifndef LIB_LORA_ADAPTER_H_
#define LIB_LORA_ADAPTER_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/distorch/weight_store.h"
#include "lib/lora/adapter_file.h"
#include "lib/lora/algorithms.h"
#include "lib/lora/target_names.h"

namespace distorch::lora {

// One parameter's change, its shapes checked.
struct PatchPlan {
  Target target;
  const Algorithm* algorithm = nullptr;
  double scale = 1;
  ByPart<const TensorInfo*> tensors{};  // those that are kept on the compute device
};

// What of an adapter fits one component.
struct AdapterPlan {
  std::vector<PatchPlan> patches;
  absl::flat_hash_set<const TensorInfo*> matched;  // the file's tensors that belong to some patch

  int64_t bytes() const;  // that AttachAdapter will keep
};

// Matches the modules of `file` with the parameters of `store`. Points into the file's index and
// the store. INVALID_ARGUMENT naming the tensor that has a shape or type that does not fit, the
// alpha that is no number, the adapter that would change a weight's shape. No match is no error:
// the plan is empty then. Reads the scalars from the file; every size is checked before anything
// that depends on it is allocated.
absl::StatusOr<AdapterPlan> PlanAdapter(const CheckpointFile& file, const AdapterModules& modules,
                                        const WeightStore& store);

struct AttachOptions {
  double strength = 1;
  c10::Device device = c10::Device(c10::DeviceType::CPU);  // where the component computes
  // Round what becomes of fp8 weights stored on the CPU to fp8 (`high_precision_loras` is false).
  bool round_to_fp8 = false;
};

// Brings the plan's tensors to the device, in the file's types, and adds the patches to the slots,
// which share their weights by now. Returns the bytes of the tensors. CANCELLED and such by
// `cancel`, RESOURCE_EXHAUSTED by the device, DATA_LOSS by a file that shrank; the slots are of no
// use after an error.
absl::StatusOr<int64_t> AttachAdapter(const CheckpointFile& file, const AdapterPlan& plan,
                                      const AttachOptions& options, const CancelToken& cancel);

}  // namespace distorch::lora

#endif  // LIB_LORA_ADAPTER_H_
