// The golden checkpoints: small files in the published layouts, made from a manifest and never
// stored (tests/golden/README.md).
#ifndef TESTS_SUPPORT_GOLDEN_CHECKPOINT_H_
#define TESTS_SUPPORT_GOLDEN_CHECKPOINT_H_

#include <string>

#include "absl/status/statusor.h"

namespace distorch {

// The path of the checkpoint that `golden_dir`/`family`/manifest.json describes, in `cache_dir`
// (made when missing): written by as many threads as there are processors unless it is there
// already. The bytes are those of tests/golden/weights.py; DATA_LOSS when their SHA-256 is not the
// manifest's, and then nothing is left behind. Safe to call from several processes.
absl::StatusOr<std::string> GoldenCheckpoint(const std::string& golden_dir,
                                             const std::string& family,
                                             const std::string& cache_dir);

}  // namespace distorch

#endif  // TESTS_SUPPORT_GOLDEN_CHECKPOINT_H_
