#include "server/http/status_page.h"

#include <openssl/sha.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "lib/base/status_macros.h"
#include "page_assets.h"

namespace distorch {
namespace {

using nlohmann::json;

constexpr char kListModels[] = "/distorch.v1.ModelService/ListModels";
// Pictures show what was asked for.
constexpr char kInfer[] = "/distorch.v1.InferenceService/Infer";

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

HttpResponse PageError(int status, const absl::Status& error) {
  return JsonResponse(status, Dump({{"error", error.message()}}));
}

json DevicesJson(const std::vector<DeviceInfo>& devices) {
  json list = json::array();
  for (const DeviceInfo& device : devices) {
    list.push_back({{"name", device.name},
                    {"kind", device.kind},
                    {"description", device.description},
                    {"total_bytes", device.total_bytes},
                    {"free_bytes", device.free_bytes},
                    {"weights_bytes", device.weights_bytes},
                    {"reserved_bytes", device.reserved_bytes},
                    {"staging_bytes", device.staging_bytes},
                    {"activations_bytes", device.activation_bytes},
                    {"queue_length", device.queue_length}});
  }
  return list;
}

json ModelsJson(const std::vector<ModelInfo>& models) {
  json list = json::array();
  for (const ModelInfo& model : models) {
    json devices = json::array();
    for (const DeviceBytes& device : model.devices) {
      devices.push_back({{"device", device.device},
                         {"planned_bytes", device.planned_bytes},
                         {"measured_bytes", device.measured_bytes},
                         {"blocks", device.blocks}});
    }
    list.push_back({{"handle", model.handle},
                    {"kind", model.kind},
                    {"ckpt_name", model.ckpt_name},
                    {"family", model.family},
                    {"state", model.state},
                    {"in_use", model.in_use},
                    {"devices", std::move(devices)},
                    {"unshared_bytes", model.unshared_bytes}});
  }
  return list;
}

json LinksJson(const std::vector<LinkInfo>& links) {
  json list = json::array();
  for (const LinkInfo& link : links) {
    list.push_back({{"from", link.from},
                    {"to", link.to},
                    {"bytes_per_second", link.bytes_per_second},
                    {"bytes", link.bytes},
                    {"exposed_seconds", link.exposed_seconds},
                    {"overlapped_seconds", link.overlapped_seconds}});
  }
  return list;
}

json ImagesJson(const std::vector<RecentImages::Image>& images) {
  json list = json::array();
  for (const RecentImages::Image& image : images)
    list.push_back({{"number", image.number}, {"seed", image.seed}});
  return list;
}

HttpResponse Status(const StatusPage& page) {
  return JsonResponse(200, Dump({{"version", page.version},
                                 {"draining", page.draining()},
                                 {"devices", DevicesJson(page.core->ListDevices())},
                                 {"models", ModelsJson(page.core->ListModels())},
                                 {"links", LinksJson(page.core->Links())},
                                 {"images", ImagesJson(page.images->List())}}));
}

std::string Argument(const HttpRequest& request, const std::string& name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

absl::StatusOr<HttpResponse> Blocks(const StatusPage& page, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const std::vector<BlockPlacement> blocks,
                   page.core->Blocks(Argument(request, "handle")));
  json list = json::array();
  for (const BlockPlacement& block : blocks)
    list.push_back({{"name", block.name}, {"device", block.device}, {"bytes", block.bytes}});
  return JsonResponse(200, Dump({{"blocks", std::move(list)}}));
}

absl::StatusOr<HttpResponse> Image(const StatusPage& page, const HttpRequest& request) {
  int64_t number = 0;
  if (!absl::SimpleAtoi(Argument(request, "number"), &number))
    return absl::InvalidArgumentError("number: is not a whole number");
  std::optional<RecentImages::Image> image = page.images->Find(number);
  if (!image.has_value()) return absl::NotFoundError("the picture is no longer kept");
  HttpResponse response;
  response.content_type = absl::StartsWith(image->data, "\x89PNG") ? "image/png"
                          : absl::StartsWith(image->data, "RIFF")  ? "image/webp"
                                                                   : "image/jpeg";
  response.body = std::move(image->data);
  return response;
}

// What Content-Security-Policy knows inline code by.
std::string Hash(std::string_view text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return absl::StrCat(
      "'sha256-", absl::Base64Escape({reinterpret_cast<const char*>(digest), SHA256_DIGEST_LENGTH}),
      "'");
}

HttpResponse Page(const StatusPage& page) {
  HttpResponse response;
  response.content_type = "text/html; charset=utf-8";
  response.body = absl::StrReplaceAll(kPageHtml, {{"@css@", kPageCss},
                                                  {"@js@", kPageJs},
                                                  {"@version@", page.version},
                                                  {"@draw@", page.can_draw ? "yes" : "no"}});
  response.headers = {
      {"Content-Security-Policy",
       absl::StrCat("default-src 'none'; style-src ", Hash(kPageCss), "; script-src ",
                    Hash(kPageJs), "; img-src data: blob:; connect-src 'self'; base-uri 'none'; ",
                    "form-action 'none'; frame-ancestors 'none'")},
      {"Referrer-Policy", "no-referrer"},
      {"X-Frame-Options", "DENY"}};
  return response;
}

}  // namespace

std::vector<HttpRoute> StatusPageRoutes(const ApiRoutes& routes, const StatusPage& page) {
  HttpRoute root;
  root.method = "GET";
  root.path = "/";
  root.handle = [answer = Page(page)](const HttpRequest&) { return answer; };
  return {std::move(root),
          routes.Make("GET", "/api/status", kListModels, PageError,
                      [page](const HttpRequest&) { return Status(page); }),
          routes.Make("GET", "/api/blocks", kListModels, PageError,
                      [page](const HttpRequest& request) { return Blocks(page, request); }),
          routes.Make("GET", "/api/image", kInfer, PageError,
                      [page](const HttpRequest& request) { return Image(page, request); })};
}

}  // namespace distorch
