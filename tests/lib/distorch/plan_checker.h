// What must hold of every plan, stated without the planner's code: shared by the property test and
// the fuzzer.
#ifndef TESTS_LIB_DISTORCH_PLAN_CHECKER_H_
#define TESTS_LIB_DISTORCH_PLAN_CHECKER_H_

#include <span>
#include <string>
#include <vector>

#include "lib/distorch/planner.h"

namespace distorch {

// Empty, or the first property that `plan` breaks: devices are the table's, sorted; every block has
// a known device; bytes and counts are conserved; no device but compute holds more than it was
// offered; tiny blocks, those without a bias member and a text encoder's embeddings are on compute.
std::string PlanViolation(std::span<const Block> blocks, const Allocation& allocation,
                          const std::vector<DeviceMemory>& devices, const PlannerOptions& options,
                          const Plan& plan);

}  // namespace distorch

#endif  // TESTS_LIB_DISTORCH_PLAN_CHECKER_H_
