// What one evaluation of a model does, block by block, and what passes between its units: the
// numbers that predictions are made of. Plain data.
#ifndef LIB_DISTORCH_STEP_WORK_H_
#define LIB_DISTORCH_STEP_WORK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lib/distorch/execution.h"

namespace distorch {

// A model as its blocks declare it, in the order in which they are declared and, roughly, run.
struct BlockShape {
  std::string name;             // the reference's module name
  std::vector<int64_t> weight;  // empty: no parameters
};
struct ModelShape {
  std::vector<BlockShape> blocks;
  std::vector<UnitSpan> units;
};

struct StepWork {
  struct Block {
    double flops = 0;
    double activation_bytes = 0;  // read and written
    // Of these, what one of its operations does: it is there at one time.
    double bytes_at_once = 0;
  };
  // What a unit is given that another made.
  struct Input {
    int unit = -1;  // -1: what runs outside units before it
    int64_t bytes = 0;
  };
  struct Unit {
    UnitSpan blocks;
    std::vector<Input> inputs;
  };

  std::vector<Block> blocks;
  std::vector<Unit> units;          // in the order in which they run
  int64_t output_bytes = 0;         // of the last unit
  int64_t largest_activations = 0;  // bytes that one block reads and writes
};

}  // namespace distorch

#endif  // LIB_DISTORCH_STEP_WORK_H_
