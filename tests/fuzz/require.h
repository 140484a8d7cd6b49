// How a fuzz target says that a property does not hold: libFuzzer keeps the input that aborted.
#ifndef TESTS_FUZZ_REQUIRE_H_
#define TESTS_FUZZ_REQUIRE_H_

#include <cstdlib>

namespace distorch {

inline void Require(bool property) {
  if (!property) std::abort();
}

}  // namespace distorch

#endif  // TESTS_FUZZ_REQUIRE_H_
