// Placement: streams a component's weights from the checkpoint straight to the devices a plan
// chose.
#ifndef LIB_DISTORCH_PLACEMENT_H_
#define LIB_DISTORCH_PLACEMENT_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "lib/base/cancellation.h"
#include "lib/base/dtype.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/distorch/transfer_meter.h"
#include "lib/distorch/weight_store.h"

namespace distorch {

// Where one slot's tensors go, and as what. A type that is not the file's is one that weights are
// converted to, never quantized.
struct SlotTarget {
  WeightSlot* slot = nullptr;
  // The meta device: they stay on disk, and are read when they are brought to where they compute.
  c10::Device device = c10::Device(c10::DeviceType::CPU);
  std::vector<DType> dtypes;  // parallel to the slot's params
};

// Bytes that `target` will occupy, wherever that is.
int64_t TargetBytes(const SlotTarget& target);

// Allocates and fills every target's tensors, in file order, with several readers, through a few
// MiB of buffers: there is never a second copy of the weights. What stays in the file's type is
// stored as it is, its scale beside it; what is converted is dequantized and scaled first.
// `progress` gets the file's bytes done so far (from any reader, serialised). On any error —
// CANCELLED or DEADLINE_EXCEEDED by `cancel`, RESOURCE_EXHAUSTED by a device, DATA_LOSS by a file
// that shrank — every slot is left empty and everything is freed. `file` outlives slots whose
// weights stay on disk.
absl::Status PlaceWeights(const CheckpointFile& file, std::span<const SlotTarget> targets,
                          TransferMeter* meter, const CancelToken& cancel,
                          const std::function<void(int64_t bytes_done)>& progress);

}  // namespace distorch

#endif  // LIB_DISTORCH_PLACEMENT_H_
