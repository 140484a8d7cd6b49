#include "server/http/openai_api.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "server/http/openai_request.h"

namespace distorch {
namespace {

using nlohmann::json;

constexpr char kInfer[] = "/distorch.v1.InferenceService/Infer";
constexpr char kListModels[] = "/distorch.v1.ModelService/ListModels";
constexpr char kModelPath[] = "/v1/models/";

// What comes from clients or file names need not be UTF-8.
std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

json ErrorJson(int status, const absl::Status& error) {
  const std::string message(error.message());
  const std::size_t colon = message.find(':');
  const bool names_field =
      absl::IsInvalidArgument(error) && colon != std::string::npos && message.find(' ') > colon;
  const char* type = status == 401   ? "authentication_error"
                     : status == 403 ? "permission_error"
                     : status == 429 ? "rate_limit_error"
                     : status < 500  ? "invalid_request_error"
                                     : "server_error";
  return {{"error",
           {{"message", message},
            {"type", type},
            {"param", names_field ? json(message.substr(0, colon)) : json(nullptr)},
            {"code", status == 404 ? json("not_found") : json(nullptr)}}}};
}

std::string SizeOf(const InferSpec& spec) { return absl::StrCat(spec.width, "x", spec.height); }

json Picture(const InferSpec& spec, const std::string& data) {
  return {{"b64_json", absl::Base64Escape(data)},
          {"created_at", absl::ToUnixSeconds(absl::Now())},
          {"size", SizeOf(spec)},
          {"output_format", spec.image_format}};
}

json ResultJson(const InferSpec& spec, const InferResult& result) {
  json answer = {{"created", absl::ToUnixSeconds(absl::Now())},
                 {"data", json::array()},
                 {"size", SizeOf(spec)},
                 {"output_format", spec.image_format},
                 {"seed", result.seed},
                 {"warnings", result.warnings}};
  for (const std::string& png : result.png)
    answer["data"].push_back({{"b64_json", absl::Base64Escape(png)}});
  return answer;
}

void AppendEvent(std::string_view type, json data, std::string* out) {
  data["type"] = type;
  absl::StrAppend(out, "event: ", type, "\ndata: ", Dump(data), "\n\n");
}

// Server-sent events: one for each preview, and one for each picture or the error.
class EventSource {
 public:
  EventSource(std::string prefix, InferSpec spec, std::unique_ptr<ImageRun> run)
      : prefix_(std::move(prefix)), spec_(std::move(spec)), run_(std::move(run)) {
    spec_.init_image.clear();
    spec_.mask_image.clear();
  }

  // False after the last.
  bool Next(std::string* out) {
    StepProgress progress;
    if (run_->NextStep(&progress)) {
      if (progress.preview_png.empty()) {
        // Keeps connections open that close when nothing is said for long.
        absl::StrAppend(out, ": step ", progress.step, " of ", progress.steps, "\n\n");
        return true;
      }
      json event = Picture(spec_, progress.preview_png);
      event["output_format"] = "png";
      event["partial_image_index"] = previews_++;
      event["step"] = progress.step;
      event["steps"] = progress.steps;
      AppendEvent(prefix_ + ".partial_image", std::move(event), out);
      return true;
    }
    const absl::StatusOr<InferResult> result = run_->Finish();
    if (!result.ok()) {
      AppendEvent("error", ErrorJson(HttpStatusOf(result.status()), result.status()), out);
      return false;
    }
    for (const std::string& png : result->png) {
      json event = Picture(spec_, png);
      event["seed"] = result->seed;
      event["warnings"] = result->warnings;
      AppendEvent(prefix_ + ".completed", std::move(event), out);
    }
    return false;
  }

 private:
  const std::string prefix_;
  InferSpec spec_;
  const std::unique_ptr<ImageRun> run_;
  int previews_ = 0;
};

absl::StatusOr<HttpResponse> Draw(ImageService* images, const HttpRequest& http, const char* job,
                                  std::string prefix, absl::StatusOr<OpenaiRequest> request) {
  RETURN_IF_ERROR(request.status());
  InferSpec spec = request->image.spec;
  ASSIGN_OR_RETURN(std::unique_ptr<ImageRun> run,
                   images->Start(http, job, std::move(request->image)));
  if (!request->stream) {
    std::shared_ptr<ImageRun> kept = std::move(run);
    ASSIGN_OR_RETURN(const InferResult result, kept->Finish());
    HttpResponse response = JsonResponse(200, Dump(ResultJson(spec, result)));
    response.keep = kept;
    return response;
  }
  HttpResponse response;
  response.content_type = "text/event-stream";
  response.stream = [events = std::make_shared<EventSource>(std::move(prefix), std::move(spec),
                                                            std::move(run))](std::string* out) {
    return events->Next(out);
  };
  return response;
}

json ModelJson(const LoadedCheckpoint& checkpoint) {
  return {{"id", checkpoint.name},
          {"object", "model"},
          {"created", 0},
          {"owned_by", "distorchd"},
          {"family", checkpoint.family}};
}

HttpResponse ListModels(const ImageService& images) {
  json models = json::array();
  for (const LoadedCheckpoint& checkpoint : images.Loaded())
    models.push_back(ModelJson(checkpoint));
  return JsonResponse(200, Dump({{"object", "list"}, {"data", std::move(models)}}));
}

// The model whose name is the rest of the path, slashes and all.
absl::StatusOr<HttpResponse> GetModel(const ImageService& images, const HttpRequest& request) {
  const std::string name = request.path.substr(std::string_view(kModelPath).size());
  for (const LoadedCheckpoint& checkpoint : images.Loaded()) {
    if (checkpoint.name == name) return JsonResponse(200, Dump(ModelJson(checkpoint)));
  }
  return absl::NotFoundError(absl::StrCat("model: ", Quoted(name), " is not loaded"));
}

}  // namespace

HttpResponse OpenaiError(int status, const absl::Status& error) {
  return JsonResponse(status, Dump(ErrorJson(status, error)));
}

std::vector<HttpRoute> OpenaiRoutes(const ApiRoutes& routes, ImageService* images,
                                    const RequestLimits& limits, std::size_t max_body) {
  return {
      routes.Make("GET", "/v1/models", kListModels, OpenaiError,
                  [images](const HttpRequest&) { return ListModels(*images); }),
      routes.Make("GET", absl::StrCat(kModelPath, "*"), kListModels, OpenaiError,
                  [images](const HttpRequest& request) { return GetModel(*images, request); }),
      routes.Make(
          "POST", "/v1/images/generations", kInfer, OpenaiError,
          [images, limits](const HttpRequest& request) {
            return Draw(images, request, "generation", "image_generation",
                        ReadGeneration(request.body, limits));
          },
          HttpRoute::Body::kRaw, max_body),
      routes.Make(
          "POST", "/v1/images/edits", kInfer, OpenaiError,
          [images, limits](const HttpRequest& request) {
            return Draw(images, request, "edit", "image_edit", ReadEdit(request.form, limits));
          },
          HttpRoute::Body::kForm, max_body),
  };
}

}  // namespace distorch
