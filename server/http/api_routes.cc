#include "server/http/api_routes.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "lib/base/retry_delay.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

// Without the port.
std::string_view HostOf(std::string_view host_and_port) {
  if (absl::StartsWith(host_and_port, "[")) {
    return host_and_port.substr(0, host_and_port.find(']') + 1);
  }
  return host_and_port.substr(0, host_and_port.find(':'));
}

bool IsLoopbackName(std::string_view host) {
  return absl::EqualsIgnoreCase(host, "localhost") || host == "127.0.0.1" || host == "[::1]";
}

// In the API's shape, with what HTTP has headers for.
HttpResponse Refusal(ErrorShape shape, const absl::Status& status) {
  HttpResponse response = shape(HttpStatusOf(status), status);
  if (absl::IsUnauthenticated(status)) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (const auto delay = RetryDelayOf(status)) {
    const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(*delay, absl::Seconds(1)));
    response.headers.emplace_back("Retry-After", absl::StrCat(seconds));
  }
  return response;
}

absl::Status CheckForm(const HttpRequest& request, HttpRoute::Body body) {
  // Browsers ask before they send JSON to another site, and are told no.
  if (body == HttpRoute::Body::kRaw &&
      !absl::StartsWithIgnoreCase(request.header("content-type"), "application/json")) {
    return absl::InvalidArgumentError("content-type: must be application/json");
  }
  return absl::OkStatus();
}

}  // namespace

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

HttpResponse JsonResponse(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.content_type = "application/json";
  response.body = std::move(body);
  return response;
}

absl::Status CheckBrowser(const HttpRequest& request, bool on_loopback) {
  const std::string_view host = request.header("host");
  if (on_loopback && !IsLoopbackName(HostOf(host))) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the host ", Quoted(host), " is not this machine's own (localhost, 127.0.0.1)"));
  }
  const std::string_view origin = request.header("origin");
  if (origin.empty()) return absl::OkStatus();
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (absl::StartsWith(origin, scheme) && origin.substr(scheme.size()) == host)
      return absl::OkStatus();
  }
  return absl::PermissionDeniedError("requests from other sites' pages are not answered");
}

HttpRoute ApiRoutes::Make(const char* method, std::string path, std::string_view grpc_method,
                          ErrorShape shape, Handler handler, HttpRoute::Body body,
                          std::size_t max_body) const {
  HttpRoute route{method, std::move(path), nullptr, body, max_body, nullptr};
  route.refuse = [=, access = access_, on_loopback = on_loopback_](
                     const HttpRequest& request) -> std::optional<HttpResponse> {
    absl::Status status = CheckBrowser(request, on_loopback);
    if (status.ok()) status = access->Admit(request.header("authorization"), grpc_method).status();
    if (status.ok()) status = CheckForm(request, body);
    if (status.ok()) return std::nullopt;
    return Refusal(shape, status);
  };
  route.handle = [shape, handler = std::move(handler)](const HttpRequest& request) {
    absl::StatusOr<HttpResponse> response = handler(request);
    return response.ok() ? *std::move(response) : Refusal(shape, response.status());
  };
  return route;
}

}  // namespace distorch
