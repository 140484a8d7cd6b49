#include "server/http/connection_watch.h"

#include <sys/socket.h>

#include "absl/time/clock.h"

namespace distorch {

constexpr absl::Duration kLook = absl::Milliseconds(500);

ConnectionWatch::ConnectionWatch() : thread_([this] { Watch(); }) {}

ConnectionWatch::~ConnectionWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void ConnectionWatch::Expect(int socket, absl::Duration time) {
  absl::MutexLock lock(&mutex_);
  deadlines_[socket] = absl::Now() + time;
}

void ConnectionWatch::Forget(int socket) {
  absl::MutexLock lock(&mutex_);
  deadlines_.erase(socket);
}

void ConnectionWatch::Watch() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithDeadline(absl::Condition(&stopping_), absl::Now() + kLook)) {
    const absl::Time now = absl::Now();
    for (const auto& [socket, deadline] : deadlines_) {
      // Under the lock: a socket is forgotten before it is closed, so the number is still its.
      if (now > deadline) shutdown(socket, SHUT_RDWR);
    }
  }
}

}  // namespace distorch
