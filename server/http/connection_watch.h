// Cuts off clients that keep a connection waiting.
#ifndef SERVER_HTTP_CONNECTION_WATCH_H_
#define SERVER_HTTP_CONNECTION_WATCH_H_

#include <thread>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace distorch {

// Thread-safe. Looks at its sockets twice a second.
class ConnectionWatch {
 public:
  ConnectionWatch();
  ~ConnectionWatch();
  ConnectionWatch(const ConnectionWatch&) = delete;
  ConnectionWatch& operator=(const ConnectionWatch&) = delete;

  // The client has to do something within `time`, which replaces what was said before, or the
  // socket is shut down (not closed: that stays its owner's).
  void Expect(int socket, absl::Duration time) ABSL_LOCKS_EXCLUDED(mutex_);
  // It may wait from now on. To be called before the socket is closed.
  void Forget(int socket) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Watch() ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::unordered_map<int, absl::Time> deadlines_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace distorch

#endif  // SERVER_HTTP_CONNECTION_WATCH_H_
