// Which device each part of a model runs on: where the model computes, as in the reference, or
// where the part's weights lie, so that activations cross the link instead of weights. Pure.
#ifndef LIB_DISTORCH_EXECUTION_H_
#define LIB_DISTORCH_EXECUTION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/device/device_id.h"

namespace distorch {

enum class Execution {
  kCompute,  // everything on the compute device
  kHolder,   // a unit on the accelerator that holds most of it
};

// "compute", "holder".
std::string_view ExecutionName(Execution execution);
// The inverse; INVALID_ARGUMENT says what is allowed.
absl::StatusOr<Execution> ParseExecution(std::string_view text);

// Blocks that run on one device as a whole: those from `first` to before `end`.
struct UnitSpan {
  size_t first = 0, end = 0;
};

// The device that holds most bytes of each unit where that is an accelerator, else `compute`, which
// also wins a tie. `bytes` and `device_of` are parallel: the blocks' sizes and where they lie.
std::vector<DeviceId> HoldersOf(std::span<const UnitSpan> units, std::span<const int64_t> bytes,
                                std::span<const DeviceId> device_of, const DeviceId& compute);

}  // namespace distorch

#endif  // LIB_DISTORCH_EXECUTION_H_
