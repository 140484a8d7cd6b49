#include "client/cpp/canceller.h"

namespace distorch::client {

void Canceller::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  for (grpc::ClientContext* context : contexts_) context->TryCancel();
}

bool Canceller::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

bool Canceller::WaitFor(absl::Duration time) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&cancelled_), time);
}

Canceller::Registration::Registration(Canceller* canceller, grpc::ClientContext* context)
    : canceller_(canceller), context_(context) {
  if (canceller_ == nullptr) return;
  absl::MutexLock lock(&canceller_->mutex_);
  canceller_->contexts_.insert(context_);
  // gRPC remembers a cancel that comes before the call starts.
  if (canceller_->cancelled_) context_->TryCancel();
}

Canceller::Registration::~Registration() {
  if (canceller_ == nullptr) return;
  absl::MutexLock lock(&canceller_->mutex_);
  canceller_->contexts_.erase(context_);
}

}  // namespace distorch::client
