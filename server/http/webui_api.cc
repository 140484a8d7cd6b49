#include "server/http/webui_api.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "server/http/lora_tags.h"
#include "server/http/webui_names.h"
#include "server/http/webui_request.h"

namespace distorch {
namespace {

using nlohmann::json;

constexpr char kInfer[] = "/distorch.v1.InferenceService/Infer";
constexpr char kListModels[] = "/distorch.v1.ModelService/ListModels";
// Of requests that have nothing to say.
constexpr std::size_t kMaxIgnoredBody = 1024;

HttpResponse Json(const json& value, int status = 200) {
  return JsonResponse(status, value.dump(-1, ' ', false, json::error_handler_t::replace));
}

// What WebUI's "info" says of the pictures; itself text in JSON.
json Info(const WebuiRequest& request, int pictures, bool interrupted) {
  const InferSpec& spec = request.image.spec;
  json seeds = json::array();
  for (int i = 0; i < pictures; ++i)
    seeds.push_back(spec.options.seed + static_cast<uint64_t>(i / spec.batch_size));
  return {
      {"prompt", request.prompt},
      {"all_prompts", std::vector<std::string>(static_cast<std::size_t>(pictures), request.prompt)},
      {"negative_prompt", spec.negative_prompt},
      {"seed", spec.options.seed},
      {"all_seeds", std::move(seeds)},
      {"width", spec.width},
      {"height", spec.height},
      {"batch_size", spec.batch_size},
      {"steps", spec.options.steps},
      {"cfg_scale", spec.options.cfg},
      {"sampler_name", WebuiLabel(spec.options.sampler_name)},
      {"scheduler", spec.options.scheduler},
      {"denoising_strength", spec.options.denoise},
      {"sd_model_name", request.image.model},
      {"interrupted", interrupted}};
}

// An interrupted run answers with the pictures that were finished, as WebUI's does.
absl::StatusOr<HttpResponse> Draw(ImageService* images, const HttpRequest& http, const char* job,
                                  const std::function<std::vector<std::string>()>& loras,
                                  absl::StatusOr<WebuiRequest> request) {
  RETURN_IF_ERROR(request.status());
  std::vector<InferLora>& tagged = request->image.spec.loras;
  const std::vector<std::string> names = tagged.empty() ? std::vector<std::string>() : loras();
  for (InferLora& lora : tagged) lora.name = FindLora(lora.name, names);
  json pictures = json::array();
  std::shared_ptr<ImageRun> run;
  bool interrupted = false;
  for (int i = 0; i < request->iterations && !interrupted; ++i) {
    ImageRequest image = request->image;
    image.spec.options.seed += static_cast<uint64_t>(i);
    ASSIGN_OR_RETURN(run, images->Start(http, job, std::move(image)));
    const absl::StatusOr<InferResult> result = run->Finish();
    interrupted = run->interrupted();
    if (!result.ok() && !interrupted) return result.status();
    if (!result.ok()) break;
    for (const std::string& png : result->png) pictures.push_back(absl::Base64Escape(png));
  }
  const json info = Info(*request, static_cast<int>(pictures.size()), interrupted);
  HttpResponse response =
      Json({{"images", std::move(pictures)},
            {"parameters", std::move(request->echo)},
            {"info", info.dump(-1, ' ', false, json::error_handler_t::replace)}});
  response.keep = run;
  return response;
}

HttpResponse Progress(const ImageService& images, const HttpRequest& request) {
  const RunProgress run = images.Progress(request).value_or(RunProgress());
  const double done = run.step.steps == 0 ? 0 : static_cast<double>(run.step.step) / run.step.steps;
  const double elapsed = absl::ToDoubleSeconds(run.elapsed);
  const auto skip = request.query.find("skip_current_image");
  const bool with_image =
      !run.step.preview_png.empty() && (skip == request.query.end() || skip->second != "true");
  return Json({{"progress", done},
               {"eta_relative", done == 0 ? 0 : elapsed * (1 - done) / done},
               {"state",
                {{"skipped", false},
                 {"interrupted", false},
                 {"job", run.job},
                 {"job_count", run.job.empty() ? 0 : 1},
                 {"job_no", 0},
                 {"sampling_step", run.step.step},
                 {"sampling_steps", run.step.steps}}},
               {"current_image",
                with_image ? json(absl::Base64Escape(run.step.preview_png)) : json(nullptr)},
               {"textinfo", nullptr}});
}

HttpResponse Models(const ImageService& images) {
  json models = json::array();
  for (const LoadedCheckpoint& checkpoint : images.Loaded()) {
    models.push_back({{"title", checkpoint.name},
                      {"model_name", checkpoint.name},
                      {"hash", nullptr},
                      {"sha256", nullptr},
                      {"filename", checkpoint.name},
                      {"config", nullptr}});
  }
  return Json(models);
}

HttpResponse Samplers() {
  json samplers = json::array();
  for (const WebuiSampler& sampler : WebuiSamplers()) {
    samplers.push_back({{"name", sampler.label},
                        {"aliases", {sampler.name}},
                        {"options", {{"scheduler", sampler.scheduler}}}});
  }
  return Json(samplers);
}

HttpResponse Schedulers() {
  json schedulers = json::array();
  for (const WebuiScheduler& scheduler : WebuiSchedulers()) {
    schedulers.push_back({{"name", scheduler.name},
                          {"label", scheduler.label},
                          {"aliases", nullptr},
                          {"default_rho", -1},
                          {"need_inner_model", false}});
  }
  return Json(schedulers);
}

HttpResponse Loras(const std::vector<std::string>& names) {
  json loras = json::array();
  for (const std::string& name : names) {
    loras.push_back(
        {{"name", name}, {"alias", name}, {"path", name}, {"metadata", json::object()}});
  }
  return Json(loras);
}

HttpResponse Options(const ImageService& images) {
  const std::vector<LoadedCheckpoint> loaded = images.Loaded();
  return Json({{"sd_model_checkpoint", loaded.empty() ? json(nullptr) : json(loaded.front().name)},
               {"samples_format", "png"},
               {"CLIP_stop_at_last_layers", 1}});
}

}  // namespace

HttpResponse WebuiError(int status, const absl::Status& error) {
  return Json({{"error", absl::StatusCodeToString(error.code())},
               {"detail", error.message()},
               {"body", ""},
               {"errors", error.message()}},
              absl::IsInvalidArgument(error) && status == 400 ? 422 : status);
}

std::vector<HttpRoute> WebuiRoutes(const ApiRoutes& routes, ImageService* images,
                                   std::function<std::vector<std::string>()> loras,
                                   const RequestLimits& limits, std::size_t max_body) {
  const auto get = [&routes](const char* path, std::function<HttpResponse(const HttpRequest&)> f) {
    return routes.Make("GET", path, kListModels, WebuiError, std::move(f));
  };
  const auto draw = [&](const char* path, const char* job, bool from_image) {
    return routes.Make(
        "POST", path, kInfer, WebuiError,
        [=](const HttpRequest& request) {
          return Draw(images, request, job, loras, ReadWebui(request.body, from_image, limits));
        },
        HttpRoute::Body::kRaw, max_body);
  };
  return {
      draw("/sdapi/v1/txt2img", "txt2img", false),
      draw("/sdapi/v1/img2img", "img2img", true),
      get("/sdapi/v1/sd-models", [images](const HttpRequest&) { return Models(*images); }),
      get("/sdapi/v1/samplers", [](const HttpRequest&) { return Samplers(); }),
      get("/sdapi/v1/schedulers", [](const HttpRequest&) { return Schedulers(); }),
      get("/sdapi/v1/loras", [loras](const HttpRequest&) { return Loras(loras()); }),
      get("/sdapi/v1/options", [images](const HttpRequest&) { return Options(*images); }),
      get("/sdapi/v1/progress",
          [images](const HttpRequest& request) { return Progress(*images, request); }),
      routes.Make(
          "POST", "/sdapi/v1/interrupt", kInfer, WebuiError,
          [images](const HttpRequest& request) {
            images->Interrupt(request);
            return Json(json::object());
          },
          HttpRoute::Body::kNone, kMaxIgnoredBody),
  };
}

}  // namespace distorch
