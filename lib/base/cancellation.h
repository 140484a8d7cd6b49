// Cooperative cancellation: one side asks, the other looks between steps. It goes with a request
// wherever that goes, and so does the name of who made it.
#ifndef LIB_BASE_CANCELLATION_H_
#define LIB_BASE_CANCELLATION_H_

#include <memory>
#include <stop_token>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace distorch {

// Thread-safe. The first call of Cancel wins; later ones change nothing.
class CancelToken {
 public:
  explicit CancelToken(absl::Time deadline = absl::InfiniteFuture(), std::string client = "")
      : deadline_(deadline), client_(std::move(client)) {}
  CancelToken(const CancelToken&) = delete;
  CancelToken& operator=(const CancelToken&) = delete;

  // `reason` is what the cancelled work answers (CANCELLED, ABORTED, …); never OK.
  void Cancel(absl::Status reason) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      if (reason_.ok()) reason_ = std::move(reason);
    }
    stop_.request_stop();
  }

  // OK while the work should go on; else Cancel's reason, or DEADLINE_EXCEEDED once the deadline
  // has passed.
  absl::Status Check() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (!reason_.ok()) return reason_;
    if (absl::Now() >= deadline_) {
      return absl::DeadlineExceededError("the request's deadline passed before it was finished");
    }
    return absl::OkStatus();
  }

  absl::Time deadline() const { return deadline_; }
  // Who asks, for what is shared fairly or limited per client: the name of an access token, or else
  // the address; empty for work of the process's own.
  const std::string& client() const { return client_; }

  // For std::stop_callback: called from Cancel (not when the deadline passes), in whichever thread
  // that is and under whichever locks it holds, so that it may only hand over.
  std::stop_token stop_token() const { return stop_.get_token(); }

 private:
  const absl::Time deadline_;
  const std::string client_;
  mutable absl::Mutex mutex_;
  absl::Status reason_ ABSL_GUARDED_BY(mutex_);
  std::stop_source stop_;
};

using CancelTokenPtr = std::shared_ptr<CancelToken>;

}  // namespace distorch

#endif  // LIB_BASE_CANCELLATION_H_
