// What the benchmark programs with a main of their own share.
#ifndef TESTS_BENCH_BENCH_SUPPORT_H_
#define TESTS_BENCH_BENCH_SUPPORT_H_

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace distorch {

// The value, or the error on stderr and the program's end.
template <typename T>
T OrDie(absl::StatusOr<T> result) {
  if (result.ok()) return *std::move(result);
  std::cerr << result.status() << "\n";
  std::exit(1);
}

inline void OrDie(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << "\n";
  std::exit(1);
}

// The upper one of an even number; `values` must not be empty.
inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace distorch

#endif  // TESTS_BENCH_BENCH_SUPPORT_H_
