// A request as a sequence of phases, each on the executor of the device that computes it.
#ifndef LIB_SERVING_PHASES_H_
#define LIB_SERVING_PHASES_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/base/cancellation.h"
#include "lib/device/device_id.h"
#include "lib/serving/executor.h"
#include "lib/serving/observer.h"

namespace distorch {

// Seconds by phase; the waits for executors add up to "queue".
using PhaseSeconds = std::map<std::string, double>;

struct Phase {
  std::string name;  // "text", "sample", …
  DeviceId device;
  absl::AnyInvocable<absl::Status()> work;
};

// One executor a device, and the requests on them. Thread-safe.
class PhaseRunner {
 public:
  // `done` hears OK after the last phase, or the first error; then `seconds` has what was run.
  using Finished =
      absl::AnyInvocable<void(const absl::Status& status, const PhaseSeconds& seconds)>;
  using PhaseStarted = std::function<void(std::string_view name)>;

  // `observer` must outlive it.
  PhaseRunner(const std::vector<DeviceId>& devices, int queue_limit, Observer* observer);
  // Cancels every request and waits for their ends.
  ~PhaseRunner();

  // Admits the request, or tells `done` RESOURCE_EXHAUSTED at once when the first phase's queue is
  // full. `cancel` is checked before each phase. `family` is for the observer.
  void Run(std::string family, std::vector<Phase> phases, CancelTokenPtr cancel,
           PhaseStarted started, Finished done);

  // A job for a request of another device: taken only when `device` has nothing else to do.
  bool TryRun(const DeviceId& device, Executor::Job job);

  int queue_length(const DeviceId& device) const;

 private:
  struct Request;

  void Start(std::shared_ptr<Request> request);
  void RunCurrent(std::shared_ptr<Request> request);
  void Finish(Request& request, const absl::Status& status);

  Observer* const observer_;
  std::map<DeviceId, std::unique_ptr<Executor>> executors_;
  mutable absl::Mutex mutex_;
  std::multiset<CancelTokenPtr> active_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace distorch

#endif  // LIB_SERVING_PHASES_H_
