// LibTorch's threads for loops of our own.
#ifndef LIB_BASE_PARALLEL_H_
#define LIB_BASE_PARALLEL_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace distorch {

// Calls `body` with ranges that together are [begin, end), at the same time in LibTorch's threads:
// as many as at::get_num_threads says, but none with less than `grain`. Inside of another such loop
// there is one. An exception of `body` is thrown again when all have ended; thread-local states,
// such as inference mode, are not handed on. at::parallel_for itself, used in a file that is not
// compiled for OpenMP, runs in one thread.
void ParallelFor(int64_t begin, int64_t end, int64_t grain,
                 absl::FunctionRef<void(int64_t begin, int64_t end)> body);

}  // namespace distorch

#endif  // LIB_BASE_PARALLEL_H_
