// All that is served over HTTP, on one port: metrics and health, the status page, and the image
// APIs where they are allowed.
#ifndef SERVER_HTTP_FRONT_H_
#define SERVER_HTTP_FRONT_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "lib/serving/checkpoint_folders.h"
#include "lib/serving/daemon_core.h"
#include "server/call.h"
#include "server/http/http_server.h"
#include "server/image_service.h"
#include "server/metrics.h"
#include "server/options.h"
#include "server/recent_images.h"

namespace distorch {

class HttpFront {
 public:
  // Listens on --metrics_address. UNAVAILABLE when it cannot. What it is given must outlive it.
  static absl::StatusOr<std::unique_ptr<HttpFront>> Start(const Options& options, DaemonCore* core,
                                                          const Metrics* metrics,
                                                          CallMonitor* monitor,
                                                          RecentImages* recent);
  HttpFront(const HttpFront&) = delete;
  HttpFront& operator=(const HttpFront&) = delete;

  int port() const { return server_->port(); }

 private:
  HttpFront(DaemonCore* core, CallMonitor* monitor, RecentImages* recent, ModelFolders loras)
      : images_(core, monitor, recent), loras_(std::move(loras)) {}

  ImageService images_;
  const ModelFolders loras_;
  std::unique_ptr<HttpServer> server_;  // destroyed first: its threads use the rest
};

}  // namespace distorch

#endif  // SERVER_HTTP_FRONT_H_
