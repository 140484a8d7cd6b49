// The thread of a compute device, and the queue of those who wait for it: kernels never wait for
// each other's mutexes, and gRPC's threads never wait for kernels.
#ifndef LIB_SERVING_DEVICE_QUEUE_H_
#define LIB_SERVING_DEVICE_QUEUE_H_

#include <functional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/serving/fair_queue.h"
#include "lib/serving/infer_spec.h"

namespace distorch {

// Thread-safe.
class DeviceQueue {
 public:
  using Place = FairQueue::Place;
  using Job = absl::AnyInvocable<void()>;
  using Told = std::function<void(const QueueProgress&)>;  // must not block; may be empty

  // `name` is for messages and the thread's name.
  DeviceQueue(const std::string& name, const QueueLimits& limits);
  // Everybody has left. Joins.
  ~DeviceQueue();
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;

  // A place for a request, until it Leaves. RESOURCE_EXHAUSTED, saying when to retry, when the
  // queue is full.
  absl::StatusOr<Place> Enter(const QueueClaim& claim) ABSL_LOCKS_EXCLUDED(mutex_);
  // Runs `job` when its place's turn comes; `seconds_left` is what the request will still need of
  // the device, with this job. `told` hears of the position while it waits.
  void Post(Place place, double seconds_left, Job job, Told told) ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes a posted job back; false when it has begun, or is none.
  bool Withdraw(Place place) ABSL_LOCKS_EXCLUDED(mutex_);
  // Also from the place's own job.
  void Leave(Place place) ABSL_LOCKS_EXCLUDED(mutex_);

  // A job without a place, taken only when it would run at once; else it stays untouched.
  bool TryPost(Job& job) ABSL_LOCKS_EXCLUDED(mutex_);

  // What a request that entered now would wait, as far as that can be predicted.
  absl::Duration PredictedWait(const QueueClaim& claim) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Those who wait; the running one does not count.
  int length() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Waiting {
    Job job;
    Told told;
    int told_position = 0;
  };
  // What is to be told, once the mutex is free.
  struct Notice {
    Told told;
    QueueProgress progress;
  };

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasWorkOrStops() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || extra_ != nullptr || queue_.HasReady();
  }
  double RunningSecondsLeft() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Notice> Notices() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string name_;
  mutable absl::Mutex mutex_;
  FairQueue queue_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<Place, Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  Job extra_ ABSL_GUARDED_BY(mutex_);
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time started_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it starts when everything else is there
};

}  // namespace distorch

#endif  // LIB_SERVING_DEVICE_QUEUE_H_
