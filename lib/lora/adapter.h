// Adapters on components: what of a file fits which parameters, its tensors on the compute device,
// and its patches in the slots.
#ifndef LIB_LORA_ADAPTER_H_
#define LIB_LORA_ADAPTER_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
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

  // The patches' tensors, each once, in the file's order.
  std::vector<const TensorInfo*> tensors() const;
};

// Matches the modules of `file` with the parameters of `store`. Points into the file's index and
// the store. INVALID_ARGUMENT naming the tensor that has a shape or type that does not fit, the
// alpha that is no number, the adapter that would change a weight's shape. No match is no error:
// the plan is empty then. Reads the scalars from the file; every size is checked before anything
// that depends on it is allocated.
absl::StatusOr<AdapterPlan> PlanAdapter(const CheckpointFile& file, const AdapterModules& modules,
                                        const WeightStore& store);

// Tensors of an adapter file on a device, in the file's types and in one allocation. Immutable;
// patches share the memory.
class AdapterTensors {
 public:
  // What the tensors of `plan` will take.
  static int64_t BytesOf(const AdapterPlan& plan);

  // Brings them to `device`. CANCELLED and such by `cancel`, RESOURCE_EXHAUSTED by the device,
  // DATA_LOSS by a file that shrank.
  static absl::StatusOr<AdapterTensors> Read(const CheckpointFile& file, const AdapterPlan& plan,
                                             const c10::Device& device, const CancelToken& cancel);

  int64_t bytes() const { return bytes_; }
  // Whether all tensors of `plan`, made for a file of the same content, are here.
  bool Has(const AdapterPlan& plan) const;
  // Undefined when it is not here.
  at::Tensor Find(const TensorInfo& info) const;

 private:
  absl::flat_hash_map<std::string, at::Tensor> by_name_;
  int64_t bytes_ = 0;
};

struct AttachOptions {
  double strength = 1;
  // Round what becomes of fp8 weights stored on the CPU to fp8 (`high_precision_loras` is false).
  bool round_to_fp8 = false;
};

// Adds the plan's patches to the slots, which share their weights by now. `tensors` has all of the
// plan's, on the device where the component computes.
void AttachAdapter(const AdapterPlan& plan, const AdapterTensors& tensors,
                   const AttachOptions& options);

}  // namespace distorch::lora

#endif  // LIB_LORA_ADAPTER_H_
