// Devices that evaluate a model together: each a share of the batch, in the same type and from the
// same weights, so that the result is the same whoever computes a share.
#ifndef LIB_PIPELINE_DEVICE_TEAM_H_
#define LIB_PIPELINE_DEVICE_TEAM_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "lib/models/diffusion_model.h"

namespace distorch::pipeline {

// One more device for a model.
struct Teammate {
  // The model's weights, computing on the teammate's device. Outlives the sampling.
  const models::DiffusionModel* model = nullptr;
  // Runs a job on the device's thread; false, at once, when the device has other work. A job never
  // waits for another device's.
  std::function<bool(absl::AnyInvocable<void()> job)> try_run;
};

// What was measured of one model's evaluations, by their size: whether a device alone or the team
// is faster. Each is tried twice, for the first time warms up, then the faster is chosen.
// Thread-safe.
class TeamTimes {
 public:
  enum class Way { kAlone, kTogether };

  // How to evaluate next.
  struct Choice {
    Way way = Way::kAlone;
    bool measure = false;  // Record is to be told
  };
  Choice Next(int64_t size) const ABSL_LOCKS_EXCLUDED(mutex_);
  void Record(int64_t size, Way way, double seconds) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Tries {
    int count = 0;
    double best_seconds = 0;
  };
  mutable absl::Mutex mutex_;
  std::map<std::pair<int64_t, Way>, Tries> tries_ ABSL_GUARDED_BY(mutex_);
};

struct Team {
  std::vector<Teammate> mates;
  // Null: the team evaluates whenever its devices are idle.
  std::shared_ptr<TeamTimes> times;
  // Told when a teammate is left out for the rest of a sampling; may be empty.
  std::function<void(std::string_view)> warn;
};

}  // namespace distorch::pipeline

#endif  // LIB_PIPELINE_DEVICE_TEAM_H_
