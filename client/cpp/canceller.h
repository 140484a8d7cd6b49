// Stops calls from another thread than the one that waits for them.
#ifndef CLIENT_CPP_CANCELLER_H_
#define CLIENT_CPP_CANCELLER_H_

#include <grpcpp/client_context.h>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace distorch::client {

// Thread-safe. Given to any number of calls through CallOptions; must outlive them. Not for signal
// handlers (it locks): let a thread wait for the signal instead.
class Canceller {
 public:
  Canceller() = default;
  Canceller(const Canceller&) = delete;
  Canceller& operator=(const Canceller&) = delete;

  // Calls under way end with CANCELLED soon, later ones at once; the server is told and frees what
  // they held. Idempotent.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);
  bool cancelled() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Blocks for that long at most; whether it was cancelled.
  bool WaitFor(absl::Duration time) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Ties one call's context to a canceller (which may be null) for as long as the object lives.
  class Registration {
   public:
    Registration(Canceller* canceller, grpc::ClientContext* context);
    ~Registration();
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    Canceller* const canceller_;
    grpc::ClientContext* const context_;
  };

 private:
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_set<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace distorch::client

#endif  // CLIENT_CPP_CANCELLER_H_
