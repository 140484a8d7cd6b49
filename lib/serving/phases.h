// A request as a sequence of phases, each on the thread of the device that computes it.
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
#include "lib/serving/device_queue.h"
#include "lib/serving/executor.h"
#include "lib/serving/infer_spec.h"
#include "lib/serving/observer.h"

namespace distorch {

// Seconds by phase; the waits for devices add up to "queue".
using PhaseSeconds = std::map<std::string, double>;

// What a phase is predicted to take.
struct PhaseForecast {
  double seconds = 0;     // 0: nothing is known
  bool measured = false;  // it rests on runs, and may refuse a request

  double MeasuredSeconds() const { return measured ? seconds : 0; }
};

struct Phase {
  std::string name;  // "text", "sample", …
  DeviceId device;
  absl::AnyInvocable<absl::Status()> work;  // throws nothing
  PhaseForecast forecast;
};

struct PhasedRequest {
  std::string family;  // for the observer
  int priority = 0;
  std::vector<Phase> phases;  // one, at least
  // Checked before each phase; ends a wait at once. Its client shares fairly with others.
  CancelTokenPtr cancel;
  std::function<void(std::string_view phase)> started;  // may be empty, as the next
  std::function<void(const QueueProgress&)> queued;
};

// The devices' queues, and the requests in them. Thread-safe.
class PhaseRunner {
 public:
  // `done` hears OK after the last phase, or the first error; then `seconds` has what was run.
  using Finished =
      absl::AnyInvocable<void(const absl::Status& status, const PhaseSeconds& seconds)>;

  // `observer` must outlive it.
  PhaseRunner(const std::vector<DeviceId>& devices, const QueueLimits& limits, Observer* observer);
  // Cancels every request and waits for their ends.
  ~PhaseRunner();

  // Admits the request, or tells `done` at once why not: RESOURCE_EXHAUSTED, with when to try
  // again, when the queue of a device that it needs is full, or its deadline cannot be met for
  // those before it; DEADLINE_EXCEEDED when that could not be met by an idle server.
  void Run(PhasedRequest request, Finished done) ABSL_LOCKS_EXCLUDED(mutex_);

  // A job for a request of another device: taken only when `device` has nothing else to do.
  bool TryRun(const DeviceId& device, DeviceQueue::Job job);

  int queue_length(const DeviceId& device) const;

 private:
  struct Request;

  absl::Status CheckDeadline(const Request& request,
                             const std::map<DeviceId, QueueClaim>& claims) const;
  // Places in the queues of all devices that the request needs, or in none.
  absl::Status Admit(Request& request);
  void Enqueue(const std::shared_ptr<Request>& request);
  void Withdraw(const std::shared_ptr<Request>& request);
  void RunCurrent(const std::shared_ptr<Request>& request);
  void Finish(Request& request, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);

  Observer* const observer_;
  std::map<DeviceId, std::unique_ptr<DeviceQueue>> queues_;
  mutable absl::Mutex mutex_;
  std::multiset<CancelTokenPtr> active_ ABSL_GUARDED_BY(mutex_);
  Executor ender_;  // ends what was cancelled while it waited: whoever cancels may hold locks
};

}  // namespace distorch

#endif  // LIB_SERVING_PHASES_H_
