// An HTTP/1.1 server for a fixed table of routes. Nothing is ever read from disk for a request. The
// only part of distorchd that knows libmicrohttpd (in http_server.cc).
#ifndef SERVER_HTTP_HTTP_SERVER_H_
#define SERVER_HTTP_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/http/http_types.h"

namespace distorch {

struct HttpLimits {
  int connections = 256;        // more are closed at once
  std::size_t head = 64 << 10;  // bytes of request line and headers
  int form_parts = 64;
  // Who takes longer is cut off: to send the request line and headers (and, on a connection that is
  // kept, to ask again), to send the body, to take each 64 KiB of the answer.
  absl::Duration head_time = absl::Seconds(20);
  absl::Duration body_time = absl::Seconds(120);
  absl::Duration send_time = absl::Seconds(60);
};

struct HttpServerOptions {
  std::string host;
  int port = 0;  // 0: any free one
  std::vector<HttpRoute> routes;
  // Makes the answer to a request that no route takes, or whose body it does not: 404, 405, 413,
  // 415, 400. A plain one by default.
  std::function<HttpResponse(std::string_view path, int status, std::string_view message)> error;
  HttpLimits limits;
};

// A thread for each connection: handlers may block.
class HttpServer {
 public:
  // UNAVAILABLE when it cannot listen there.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options);
  // Cuts off every connection and waits for the handlers (HttpRequest::gone is true for them).
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace distorch

#endif  // SERVER_HTTP_HTTP_SERVER_H_
