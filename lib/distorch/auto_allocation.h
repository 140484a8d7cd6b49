// The allocation "auto": of many splits of a model, the one that is predicted to take a step least
// time within the memory that is free. Pure and deterministic.
#ifndef LIB_DISTORCH_AUTO_ALLOCATION_H_
#define LIB_DISTORCH_AUTO_ALLOCATION_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/distorch/execution.h"
#include "lib/distorch/planner.h"
#include "lib/distorch/step_predictor.h"

namespace distorch {

// What an expert string says to have the split chosen.
inline constexpr std::string_view kAutoAllocation = "auto";

struct AutoOptions {
  // What each device can take, parallel to the model's devices: free memory less what must stay
  // free. 0 for a device that is to hold nothing.
  std::vector<int64_t> usable_bytes;
  // Whether what the model may stage (StepModel::staging_bytes) is to stay free on the compute
  // device, too, as far as a quarter of what it can take, unless everything fits there.
  bool leaves_room_to_stage = false;
  bool is_text_encoder = false;  // as PlannerOptions'
  Execution execution = Execution::kCompute;
};

// Devices are positions in the model's.
struct AutoPlan {
  std::vector<int> assignment;  // of each block
  UnitPlan units;
  std::string_view way;  // how the split was made, for people: "spread", "virtual VRAM", …
  bool fits = false;     // within usable_bytes; where nothing does, the rest is on compute
};

// Everything on the compute device where it fits. Else the fastest of: the node's own modes
// (virtual VRAM at several amounts and orders of the donors, shares by free memory), one piece of
// the model after another as free memory has room, what must leave the compute device spread evenly
// over the step so that transfers hide behind computing, and whole units on other accelerators.
// `blocks` are the predictor's. Below 50 ms for 1,050 blocks.
AutoPlan AllocateAutomatically(const StepPredictor& predictor, std::span<const Block> blocks,
                               const AutoOptions& options);

// "cuda:0,3.20gb;cpu,1.10gb": what of the model lies where, as an expert string would ask for it.
std::string DescribeSplit(std::span<const int> assignment, const StepModel& model);

}  // namespace distorch

#endif  // LIB_DISTORCH_AUTO_ALLOCATION_H_
