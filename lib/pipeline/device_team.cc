#include "lib/pipeline/device_team.h"

#include <algorithm>
#include <utility>

namespace distorch::pipeline {
namespace {

constexpr int kTries = 2;

}  // namespace

TeamTimes::Choice TeamTimes::Next(int64_t size) const {
  absl::MutexLock lock(&mutex_);
  const auto tries = [&](Way way) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    auto found = tries_.find({size, way});
    return found == tries_.end() ? Tries() : found->second;
  };
  const Tries alone = tries(Way::kAlone), together = tries(Way::kTogether);
  if (alone.count < kTries) return {Way::kAlone, true};
  if (together.count < kTries) return {Way::kTogether, true};
  return {together.best_seconds < alone.best_seconds ? Way::kTogether : Way::kAlone, false};
}

void TeamTimes::Record(int64_t size, Way way, double seconds) {
  absl::MutexLock lock(&mutex_);
  Tries& tries = tries_[{size, way}];
  tries.best_seconds = tries.count == 0 ? seconds : std::min(tries.best_seconds, seconds);
  ++tries.count;
}

}  // namespace distorch::pipeline
