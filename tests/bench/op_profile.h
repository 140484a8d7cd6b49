// Where the time of LibTorch's operators goes: self time by operator, as a table.
#ifndef TESTS_BENCH_OP_PROFILE_H_
#define TESTS_BENCH_OP_PROFILE_H_

#include <ostream>

namespace distorch {

// Counts from here on, in every thread of the process.
void StartOpProfile();
// Forgets what was counted so far.
void ResetOpProfile();
// The operators that took most, with their shares of the time of all.
void PrintOpProfile(std::ostream& out);

}  // namespace distorch

#endif  // TESTS_BENCH_OP_PROFILE_H_
