// What phases took, for forecasts of the next.
#ifndef LIB_SERVING_PHASE_COSTS_H_
#define LIB_SERVING_PHASE_COSTS_H_

#include <map>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace distorch {

// Seconds a unit (a text, a pixel, …) by key (what is run, and where). Thread-safe. Keys are of
// what is loaded, so that there are few.
class PhaseCosts {
 public:
  // Half of a forecast is what the last run took: one slow run is not the rule.
  void Learn(const std::string& key, double units, double seconds) ABSL_LOCKS_EXCLUDED(mutex_);
  // nullopt: nothing with this key has run.
  std::optional<double> Seconds(const std::string& key, double units) const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, double> seconds_per_unit_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace distorch

#endif  // LIB_SERVING_PHASE_COSTS_H_
