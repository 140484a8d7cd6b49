#include "server/http/operation_routes.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace distorch {
namespace {

HttpResponse Text(int status, std::string_view text) {
  HttpResponse response;
  response.status = status;
  response.body = absl::StrCat(text, "\n");
  return response;
}

}  // namespace

std::vector<HttpRoute> OperationRoutes(std::function<std::string()> scrape,
                                       std::function<std::vector<std::string>()> unready) {
  HttpRoute metrics, healthz, readyz;
  metrics.method = healthz.method = readyz.method = "GET";
  metrics.path = "/metrics";
  metrics.handle = [scrape = std::move(scrape)](const HttpRequest&) {
    HttpResponse response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = scrape();
    return response;
  };
  healthz.path = "/healthz";
  healthz.handle = [](const HttpRequest&) { return Text(200, "alive"); };
  readyz.path = "/readyz";
  readyz.handle = [unready = std::move(unready)](const HttpRequest&) {
    const std::vector<std::string> reasons = unready();
    return reasons.empty() ? Text(200, "ready") : Text(503, absl::StrJoin(reasons, "\n"));
  };
  return {std::move(metrics), std::move(healthz), std::move(readyz)};
}

}  // namespace distorch
