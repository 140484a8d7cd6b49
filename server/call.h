// One RPC as the server sees it, whatever its method: who asks, how it is cancelled, and what is
// told when it ends.
#ifndef SERVER_CALL_H_
#define SERVER_CALL_H_

#include <grpcpp/server_context.h>

#include <string>
#include <string_view>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/base/cancellation.h"
#include "server/logging.h"
#include "server/metrics.h"

namespace distorch {

class Call;

// The calls in flight. Thread-safe; outlives its calls.
class CallMonitor {
 public:
  CallMonitor(Metrics* metrics, Logger* logger) : metrics_(metrics), logger_(logger) {}
  CallMonitor(const CallMonitor&) = delete;
  CallMonitor& operator=(const CallMonitor&) = delete;

  // From now on new calls are refused with UNAVAILABLE, which clients retry elsewhere.
  void StopAdmitting() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until no call is left; false when `deadline` came first.
  bool WaitUntilIdle(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  void CancelAll(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_);
  bool admitting() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return admitting_;
  }

  Logger* logger() const { return logger_; }

 private:
  friend class Call;
  // The refusal, or OK when the call was admitted and must End.
  absl::Status Begin(Call* call) ABSL_LOCKS_EXCLUDED(mutex_);
  void End(Call* call) ABSL_LOCKS_EXCLUDED(mutex_);
  bool Idle() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return calls_.empty(); }

  Metrics* const metrics_;
  Logger* const logger_;
  mutable absl::Mutex mutex_;
  bool admitting_ ABSL_GUARDED_BY(mutex_) = true;
  std::unordered_set<Call*> calls_ ABSL_GUARDED_BY(mutex_);
};

// Lives in the call's reactor. Thread-safe but for its constructor and End.
class Call {
 public:
  // Echoes the client's x-request-id metadata, or one made up, in the initial metadata. `method`
  // must be a literal.
  Call(CallMonitor* monitor, grpc::CallbackServerContext* context, std::string_view method);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Not OK when the call is refused at once (while the server drains).
  const absl::Status& admission() const { return admission_; }
  // Carries the client's deadline; cancelled when the client goes away or the server ends.
  const CancelTokenPtr& cancel() const { return cancel_; }
  // Who asks, for what is shared fairly between clients.
  const std::string& client() const { return client_; }
  // The reactor's OnCancel: the client cancelled, went away, or its deadline passed.
  void ClientGone();

  // Tells log and metrics what is about to be answered, once, and translates it.
  grpc::Status Answer(const absl::Status& status);
  // The reactor's OnDone: nothing of the call is left.
  void End();

 private:
  CallMonitor* const monitor_;
  const std::string_view method_;
  const absl::Time start_ = absl::Now();
  const std::string peer_;
  const std::string client_;
  const std::string request_id_;
  const CancelTokenPtr cancel_;
  const absl::Status admission_;
};

}  // namespace distorch

#endif  // SERVER_CALL_H_
