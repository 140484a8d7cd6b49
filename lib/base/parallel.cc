#include "lib/base/parallel.h"

#include <ATen/Parallel.h>

#ifndef _OPENMP
#error at::parallel_for would run in one thread
#endif

namespace distorch {

void ParallelFor(int64_t begin, int64_t end, int64_t grain,
                 absl::FunctionRef<void(int64_t, int64_t)> body) {
  at::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) { body(from, to); });
}

}  // namespace distorch
