// The running server: gRPC and metrics listeners around a core. Free of gRPC's headers, so that
// main can include it beside LibTorch's.
#ifndef SERVER_SERVER_H_
#define SERVER_SERVER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/serving/daemon_core.h"
#include "server/access.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/options.h"

namespace distorch {

class Server {
 public:
  // Listens and serves; health says SERVING once it returns. UNAVAILABLE when an address cannot be
  // listened on; CheckTls's errors. The last four must outlive the server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Options& options, DaemonCore* core,
                                                       const Access* access, Metrics* metrics,
                                                       Logger* logger);
  // Drains without patience if Drain was not called.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  int metrics_port() const;  // 0 when metrics are off

  // Stops for good: health says NOT_SERVING, new calls are refused with UNAVAILABLE, running ones
  // may take `patience` to finish and are then cancelled. Returns when no call is left. At most
  // once.
  void Drain(absl::Duration patience);

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

// Blocks SIGTERM, SIGINT and SIGHUP in this thread and those it starts; call it before any other
// thread exists.
void BlockSignals();

// Starts a server, writes the port file, and drains it when SIGTERM or SIGINT comes; a second
// signal while it drains ends the process at once. The file of tokens is read again when it changes
// (within a second) and on SIGHUP. Needs BlockSignals.
absl::Status Serve(const Options& options, DaemonCore* core, Access* access, Metrics* metrics,
                   Logger* logger);

}  // namespace distorch

#endif  // SERVER_SERVER_H_
