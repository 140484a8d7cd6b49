// What is evicted when something must be.
#ifndef LIB_SERVING_EVICTION_H_
#define LIB_SERVING_EVICTION_H_

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

namespace distorch {

// Of `candidates`, the best to lose first, those to evict: no more of their beginning than it takes
// until they suffice, and of that beginning none that does not matter (its bytes lie elsewhere, or
// others share them). None when all of them do not suffice, or none is needed. `suffices` is
// monotonic.
std::vector<std::string> FewestOldest(
    const std::vector<std::string>& candidates,
    absl::FunctionRef<bool(const std::vector<std::string>& evicted)> suffices);

}  // namespace distorch

#endif  // LIB_SERVING_EVICTION_H_
