// A thread that runs jobs in the order they are given: loads, unloads, and what nobody may wait
// for.
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
  // Never refused.
  void PostAdmitted(Job job) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasWorkOrStops() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !jobs_.empty();
  }

  const std::string name_;
  const int queue_limit_;
  absl::Mutex mutex_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it starts when everything else is there
};

}  // namespace distorch

#endif  // LIB_SERVING_EXECUTOR_H_
