// A TCP socket that listens.
#ifndef SERVER_HTTP_LISTEN_SOCKET_H_
#define SERVER_HTTP_LISTEN_SOCKET_H_

#include <string>

#include "absl/status/statusor.h"

namespace distorch {

struct ListenSocket {
  int fd = -1;  // whoever asked for it closes it
  int port = 0;
};

// `host` is an address or a name (its first address); `port` 0: any free one. UNAVAILABLE when it
// cannot be had.
absl::StatusOr<ListenSocket> Listen(const std::string& host, int port);

}  // namespace distorch

#endif  // SERVER_HTTP_LISTEN_SOCKET_H_
