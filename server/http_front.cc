#include "server/http_front.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "server/http/api_routes.h"
#include "server/http/openai_api.h"
#include "server/http/operation_routes.h"
#include "server/http/status_page.h"
#include "server/http/webui_api.h"

namespace distorch {
namespace {

// Of one request; pictures to edit are far smaller.
constexpr int kMaxBodyMb = 64;

void Append(std::vector<HttpRoute> routes, std::vector<HttpRoute>* all) {
  for (HttpRoute& route : routes) all->push_back(std::move(route));
}

std::vector<std::string> Unready(const CallMonitor& monitor) {
  if (monitor.admitting()) return {};
  return {"draining: the server is shutting down"};
}

// In the words of the API that the path belongs to.
HttpResponse Error(std::string_view path, int status, std::string_view message) {
  const absl::Status error(
      status == 404 ? absl::StatusCode::kNotFound : absl::StatusCode::kInvalidArgument, message);
  if (absl::StartsWith(path, "/v1/")) return OpenaiError(status, error);
  if (absl::StartsWith(path, "/sdapi/")) return WebuiError(status, error);
  HttpResponse response;
  response.status = status;
  response.body = absl::StrCat(message, "\n");
  return response;
}

absl::StatusOr<ModelFolders> LoraFolders(const CoreOptions& core) {
  std::vector<std::string> folders = core.lora_dirs;
  if (!core.extra_model_paths.empty()) {
    ASSIGN_OR_RETURN(const ExtraModelPaths extra, ReadExtraModelPaths(core.extra_model_paths));
    folders.insert(folders.end(), extra.loras.begin(), extra.loras.end());
  }
  return ModelFolders("lora", std::move(folders));
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpFront>> HttpFront::Start(const Options& options,
                                                            DaemonCore* core,
                                                            const Metrics* metrics,
                                                            CallMonitor* monitor,
                                                            RecentImages* recent) {
  ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(options.metrics_address));
  ASSIGN_OR_RETURN(ModelFolders folders, LoraFolders(options.core));
  std::unique_ptr<HttpFront> front(new HttpFront(core, monitor, recent, std::move(folders)));
  const bool on_loopback = IsLoopback(address.host);
  // Who lets only clients with certificates in does not mean everyone on this machine.
  const bool is_open = options.tls.client_ca.empty() || monitor->access().needs_token();
  const bool with_apis =
      options.http_api == "on" || (options.http_api == "auto" && on_loopback && is_open);
  const ApiRoutes api(&monitor->access(), on_loopback);

  HttpServerOptions http;
  http.host = address.host;
  http.port = address.port;
  http.error = Error;
  Append(OperationRoutes([metrics, core] { return metrics->Scrape(core); },
                         [monitor] { return Unready(*monitor); }),
         &http.routes);
  StatusPage page{std::string(DistorchdVersion()), with_apis, core, recent,
                  [monitor] { return !monitor->admitting(); }};
  Append(StatusPageRoutes(api, page), &http.routes);
  if (with_apis) {
    const std::size_t max_body =
        static_cast<std::size_t>(std::min(options.max_receive_mb, kMaxBodyMb)) << 20;
    Append(OpenaiRoutes(api, &front->images_, options.limits, max_body), &http.routes);
    Append(WebuiRoutes(
               api, &front->images_, [loras = &front->loras_] { return loras->List(); },
               options.limits, max_body),
           &http.routes);
  }
  ASSIGN_OR_RETURN(front->server_, HttpServer::Start(std::move(http)));
  return front;
}

}  // namespace distorch
