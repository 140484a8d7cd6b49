// A thread that runs jobs one after another: each compute device has one, so kernels never wait for
// each other's mutexes and gRPC's threads never wait for kernels.
#ifndef LIB_SERVING_EXECUTOR_H_
#define LIB_SERVING_EXECUTOR_H_

#include <deque>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace distorch {

// Thread-safe.
class Executor {
 public:
  using Job = absl::AnyInvocable<void()>;

  // `name` is for messages and the thread's name. At most `queue_limit` jobs wait.
  Executor(std::string name, int queue_limit);
  // Runs what still waits, then joins.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // RESOURCE_EXHAUSTED, and the job untouched, when the queue is full.
  absl::Status Post(Job& job) ABSL_LOCKS_EXCLUDED(mutex_);
  // For the next phase of a job that was admitted already: never refused.
  void PostAdmitted(Job job) ABSL_LOCKS_EXCLUDED(mutex_);

  // Takes the job only when it would run at once; else it stays untouched.
  bool TryPost(Job& job) ABSL_LOCKS_EXCLUDED(mutex_);

  // Jobs that wait; the running one does not count.
  int queue_length() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasWorkOrStops() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !jobs_.empty();
  }

  const std::string name_;
  const int queue_limit_;
  mutable absl::Mutex mutex_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it starts when everything else is there
};

}  // namespace distorch

#endif  // LIB_SERVING_EXECUTOR_H_
