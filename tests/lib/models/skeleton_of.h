// Skeletons of files that tests write: what the tests of the families are written with.
#ifndef TESTS_LIB_MODELS_SKELETON_OF_H_
#define TESTS_LIB_MODELS_SKELETON_OF_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/distorch/transfer_meter.h"
#include "lib/models/family.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {

struct WrittenSkeleton {
  std::shared_ptr<const CheckpointFile> file;
  models::Skeleton skeleton;
};

// Of a safetensors file of `entries` in `folder`.
absl::StatusOr<WrittenSkeleton> SkeletonOf(const TempFolder& folder,
                                           const std::vector<SafetensorsEntry>& entries);

// Gives every weight of `component` small random values, and lets it compute in float32 on the CPU.
// `meter` outlives it.
void FillAtRandom(nn::Component* component, TransferMeter* meter);

// `entries` without those whose name contains `part`.
std::vector<SafetensorsEntry> Without(std::vector<SafetensorsEntry> entries,
                                      const std::string& part);

}  // namespace distorch

#endif  // TESTS_LIB_MODELS_SKELETON_OF_H_
