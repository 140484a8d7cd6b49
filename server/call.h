// One RPC as the server sees it, whatever its method: who asks and whether he may, how it is
// cancelled, and what is told when it ends.
#ifndef SERVER_CALL_H_
#define SERVER_CALL_H_

#include <grpcpp/server_context.h>

#include <string>
#include <string_view>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/base/cancellation.h"
#include "server/access.h"
#include "server/logging.h"
#include "server/methods.h"
#include "server/metrics.h"
#include "server/request_ids.h"

namespace distorch {

class Call;

// The calls in flight. Thread-safe; outlives its calls, and what it is given outlives it.
class CallMonitor {
 public:
  CallMonitor(const Access* access, Metrics* metrics, Logger* logger)
      : access_(access), metrics_(metrics), logger_(logger) {}
  CallMonitor(const CallMonitor&) = delete;
  CallMonitor& operator=(const CallMonitor&) = delete;

  // From now on new calls are refused with UNAVAILABLE, which clients retry elsewhere.
  void StopAdmitting() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until no call is left; false when `deadline` came first.
  bool WaitUntilIdle(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  void CancelAll(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_);
  const Access& access() const { return *access_; }
  bool admitting() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return admitting_;
  }

 private:
  friend class Call;
  // `access`, or UNAVAILABLE when no calls are admitted. The call must End in either case.
  absl::Status Begin(Call* call, const absl::Status& access) ABSL_LOCKS_EXCLUDED(mutex_);
  void End(Call* call) ABSL_LOCKS_EXCLUDED(mutex_);
  bool Idle() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return calls_.empty(); }

  const Access* const access_;
  Metrics* const metrics_;
  Logger* const logger_;
  mutable absl::Mutex mutex_;
  bool admitting_ ABSL_GUARDED_BY(mutex_) = true;
  std::unordered_set<Call*> calls_ ABSL_GUARDED_BY(mutex_);
};

// What a request over HTTP says of where it comes from; empty where it says nothing.
struct CallOrigin {
  std::string peer, authorization, request_id, traceparent;
};

// Lives in the call's reactor, or with whoever answers over HTTP. Thread-safe but for its
// constructors and End.
class Call {
 public:
  // The request's ids go into the trailing metadata (x-request-id also into the initial one).
  Call(CallMonitor* monitor, grpc::CallbackServerContext* context, MethodName method);
  // For what is asked over HTTP but is the same to the core, the log and the metrics as `method`.
  Call(CallMonitor* monitor, const CallOrigin& origin, MethodName method);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Not OK when the call is refused at once: its token does not allow it, or the server drains.
  const absl::Status& admission() const { return admission_; }
  // Carries the client's deadline and name; cancelled when the client goes away or the server ends.
  const CancelTokenPtr& cancel() const { return cancel_; }
  // The reactor's OnCancel: the client cancelled, went away, or its deadline passed.
  void ClientGone();

  // A line of the log that is found by the request's ids. From any thread.
  void Log(Logger::Level level, std::string_view message, LogFields fields) const;
  // Tells log and metrics what is about to be answered, once, and translates it.
  grpc::Status Answer(const absl::Status& status);
  // The reactor's OnDone: nothing of the call is left.
  void End();

 private:
  CallMonitor* const monitor_;
  const MethodName method_;
  const absl::Time start_ = absl::Now();
  const std::string peer_;
  const RequestIds ids_;
  const absl::StatusOr<Principal> principal_;
  const CancelTokenPtr cancel_;
  const absl::Status admission_;
};

}  // namespace distorch

#endif  // SERVER_CALL_H_
