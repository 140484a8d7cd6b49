#include "server/http/webui_request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "server/http/image_fields.h"
#include "server/http/json_body.h"
#include "server/http/lora_tags.h"
#include "server/http/webui_names.h"

namespace distorch {
namespace {

using nlohmann::json;

// WebUI's defaults.
constexpr int kSteps = 50;
constexpr double kCfg = 7, kDenoise = 0.75;
constexpr int kPreviews = 10;  // of a run, for its progress

// Fields that would change the picture.
constexpr const char* kNotServed[] = {
    "enable_hr",        "restore_faces",      "tiling", "subseed_strength",       "script_name",
    "alwayson_scripts", "refiner_checkpoint", "styles", "inpainting_mask_invert",
};

// Whether a field asks for nothing.
bool IsNothing(const json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0;
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.empty();
}

void RefuseWhatIsNotServed(const json& object, JsonFields* fields) {
  for (const char* name : kNotServed) {
    const auto field = object.find(name);
    if (field != object.end() && !IsNothing(*field)) fields->Refuse(name, "is not served");
  }
}

// Of base64, with or without a data URI's head.
std::string ReadPicture(const char* name, std::string_view text, JsonFields* fields) {
  if (absl::StartsWith(text, "data:")) {
    const std::size_t comma = text.find(',');
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
  }
  std::string picture;
  if (!absl::Base64Unescape(text, &picture) || picture.empty())
    fields->Refuse(name, "is not a picture in base64");
  return picture;
}

void ReadInitImage(const json& object, JsonFields* fields, InferSpec* spec) {
  const auto images = object.find("init_images");
  if (images == object.end() || !images->is_array() || images->size() != 1 ||
      !images->front().is_string()) {
    return fields->Refuse("init_images", "must be a list of one picture in base64");
  }
  spec->init_image =
      ReadPicture("init_images", images->front().get_ref<const std::string&>(), fields);
  if (fields->Has("mask")) spec->mask_image = ReadPicture("mask", fields->Text("mask"), fields);
  spec->options.denoise = fields->Number("denoising_strength", kDenoise, 0, 1);
}

void ReadSampling(const RequestLimits& limits, JsonFields* fields, InferSpec* spec) {
  SamplingOptions& options = spec->options;
  options.steps =
      static_cast<int>(fields->Integer("steps", std::min(kSteps, limits.steps), 1, limits.steps));
  options.cfg = fields->Number("cfg_scale", kCfg, 0, kMaxScale);
  options.seed = ReadSeed(fields);
  const std::string sampler = fields->Text("sampler_name", fields->Text("sampler_index", "Euler"));
  const SamplerChoice choice = ChooseSampler(sampler, fields->Text("scheduler"));
  options.sampler_name = choice.sampler;
  options.scheduler = choice.scheduler;
  spec->preview_every = std::max(1, options.steps / kPreviews);
}

std::string ReadModel(const json& object, JsonFields* fields) {
  if (!fields->Has("override_settings")) return "";
  const json& settings = object["override_settings"];
  if (!settings.is_object()) {
    fields->Refuse("override_settings", "is not an object");
    return "";
  }
  JsonFields inner(settings);
  std::string model = inner.Text("sd_model_checkpoint");
  if (!inner.status().ok()) fields->Refuse("override_settings", inner.status().message());
  return model;
}

}  // namespace

absl::StatusOr<WebuiRequest> ReadWebui(std::string_view body, bool from_image,
                                       const RequestLimits& limits) {
  ASSIGN_OR_RETURN(const json object, ParseJsonObject(body));
  JsonFields fields(object);
  WebuiRequest request;
  InferSpec& spec = request.image.spec;
  request.image.model = ReadModel(object, &fields);
  spec.prompt = ReadPrompt("prompt", limits, &fields);
  spec.negative_prompt = ReadPrompt("negative_prompt", limits, &fields);
  request.prompt = spec.prompt;
  if (absl::StatusOr<TaggedPrompt> tagged = ReadLoraTags(spec.prompt); tagged.ok()) {
    spec.prompt = std::move(tagged->text);
    spec.loras = std::move(tagged->loras);
  } else {
    fields.Refuse("prompt", tagged.status().message());
  }
  const int side = std::min(spec.width, limits.image_side / 8 * 8);
  constexpr int64_t kAny = 1 << 20;
  spec.width = CheckSide("width", fields.Integer("width", side, 0, kAny), limits, &fields);
  spec.height = CheckSide("height", fields.Integer("height", side, 0, kAny), limits, &fields);
  spec.batch_size = static_cast<int>(fields.Integer("batch_size", 1, 1, limits.batch));
  request.iterations = static_cast<int>(fields.Integer("n_iter", 1, 1, limits.batch));
  ReadSampling(limits, &fields, &spec);
  if (from_image) ReadInitImage(object, &fields, &spec);
  RefuseWhatIsNotServed(object, &fields);
  RETURN_IF_ERROR(fields.status());
  request.echo = object;
  request.echo.erase("init_images");
  request.echo.erase("mask");
  return request;
}

}  // namespace distorch
