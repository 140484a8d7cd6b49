// What the routes of programs that draw have in common: who may ask, from where, in which form.
#ifndef SERVER_HTTP_API_ROUTES_H_
#define SERVER_HTTP_API_ROUTES_H_

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/access.h"
#include "server/http/http_types.h"

namespace distorch {

// How an API words its errors.
using ErrorShape = HttpResponse (*)(int status, const absl::Status& error);

// 400 for INVALID_ARGUMENT, 404 for NOT_FOUND, …
int HttpStatusOf(const absl::Status& status);

HttpResponse JsonResponse(int status, std::string body);

// Refuses what a web page of somebody else makes a browser send: requests with a foreign Origin
// and, where the server listens on loopback only, those whose Host is not loopback's (a name that
// was made to point here). PERMISSION_DENIED.
absl::Status CheckBrowser(const HttpRequest& request, bool on_loopback);

class ApiRoutes {
 public:
  // `access` must outlive the routes.
  ApiRoutes(const Access* access, bool on_loopback) : access_(access), on_loopback_(on_loopback) {}

  using Handler = std::function<absl::StatusOr<HttpResponse>(const HttpRequest&)>;

  // A route that is answered to whoever may call gRPC's `method`. A body must be JSON if it is
  // kRaw. Errors are worded by `shape`.
  HttpRoute Make(const char* method, std::string path, std::string_view grpc_method,
                 ErrorShape shape, Handler handler, HttpRoute::Body body = HttpRoute::Body::kNone,
                 std::size_t max_body = 0) const;

 private:
  const Access* const access_;
  const bool on_loopback_;
};

}  // namespace distorch

#endif  // SERVER_HTTP_API_ROUTES_H_
