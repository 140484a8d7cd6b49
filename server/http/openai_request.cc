#include "server/http/openai_request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_macros.h"
#include "lib/pipeline/image_codec.h"
#include "lib/pipeline/png_codec.h"
#include "server/http/image_fields.h"
#include "server/http/json_body.h"

namespace distorch {
namespace {

constexpr double kEditDenoise = 0.75;

void ReadSize(const RequestLimits& limits, JsonFields* fields, InferSpec* spec) {
  const std::string size = fields->Text("size", "auto");
  if (size == "auto") {
    spec->width = spec->height = std::min(spec->width, limits.image_side / 8 * 8);
    return;
  }
  const std::pair<std::string_view, std::string_view> sides = absl::StrSplit(size, 'x');
  int64_t width = 0, height = 0;
  if (!absl::SimpleAtoi(sides.first, &width) || !absl::SimpleAtoi(sides.second, &height)) {
    return fields->Refuse("size", "is neither WIDTHxHEIGHT nor auto");
  }
  spec->width = CheckSide("size", width, limits, fields);
  spec->height = CheckSide("size", height, limits, fields);
}

void ReadSampling(const RequestLimits& limits, JsonFields* fields, SamplingOptions* options) {
  const int steps = std::min(options->steps, limits.steps);
  options->steps = static_cast<int>(fields->Integer("steps", steps, 1, limits.steps));
  options->cfg = fields->Number("cfg", options->cfg, 0, kMaxScale);
  options->sampler_name = fields->Text("sampler", options->sampler_name);
  options->scheduler = fields->Text("scheduler", options->scheduler);
  options->seed = ReadSeed(fields);
}

// How the pictures come back.
void ReadAnswer(JsonFields* fields, OpenaiRequest* request) {
  if (fields->Text("response_format", "b64_json") != "b64_json") {
    fields->Refuse("response_format", "only b64_json is served: nothing is kept to link to");
  }
  InferSpec& spec = request->image.spec;
  spec.image_format = fields->Text("output_format", "png");
  if (spec.image_format != "png" && spec.image_format != "jpeg" && spec.image_format != "webp") {
    fields->Refuse("output_format", "is not one of png, jpeg, webp");
  }
  request->stream = fields->Flag("stream", false);
  const int64_t partial = fields->Integer("partial_images", 0, 0, 3);
  const int64_t every = fields->Integer("preview_every", 0, 0, spec.options.steps);
  spec.preview_every = static_cast<int>(every);
  if (every == 0 && partial > 0) {
    spec.preview_every = spec.options.steps / (static_cast<int>(partial) + 1);
    if (spec.preview_every == 0) spec.preview_every = 1;
  }
  if (!request->stream) spec.preview_every = 0;
}

void ReadCommon(const RequestLimits& limits, JsonFields* fields, OpenaiRequest* request) {
  InferSpec& spec = request->image.spec;
  request->image.model = fields->Text("model");
  spec.clip = fields->Text("clip");
  spec.vae = fields->Text("vae");
  spec.prompt = ReadPrompt("prompt", limits, fields);
  if (!fields->Has("prompt")) fields->Refuse("prompt", "is required");
  spec.negative_prompt = ReadPrompt("negative_prompt", limits, fields);
  spec.batch_size = static_cast<int>(fields->Integer("n", 1, 1, limits.batch));
  ReadSize(limits, fields, &spec);
  ReadSampling(limits, fields, &spec.options);
  ReadAnswer(fields, request);
}

// White where `picture` is transparent, as the core takes masks.
absl::StatusOr<std::string> MaskOf(std::string_view picture) {
  absl::StatusOr<Image8> image = DecodeImage(picture);
  if (!image.ok())
    return absl::InvalidArgumentError(absl::StrCat("mask: ", image.status().message()));
  if (image->channels != 4)
    return absl::InvalidArgumentError("mask: must be transparent where to repaint");
  Image8 mask{image->width, image->height, 3, {}};
  mask.pixels.reserve(image->pixels.size() / 4 * 3);
  for (std::size_t i = 3; i < image->pixels.size(); i += 4)
    mask.pixels.insert(mask.pixels.end(), 3, static_cast<uint8_t>(255 - image->pixels[i]));
  return EncodePng(mask, {}, /*compression=*/0);
}

}  // namespace

absl::StatusOr<OpenaiRequest> ReadGeneration(std::string_view body, const RequestLimits& limits) {
  ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(body));
  JsonFields fields(object);
  OpenaiRequest request;
  ReadCommon(limits, &fields, &request);
  RETURN_IF_ERROR(fields.status());
  return request;
}

absl::StatusOr<OpenaiRequest> ReadEdit(const std::vector<HttpFormPart>& form,
                                       const RequestLimits& limits) {
  OpenaiRequest request;
  InferSpec& spec = request.image.spec;
  nlohmann::json object = nlohmann::json::object();
  for (const HttpFormPart& part : form) {
    if (part.name == "image" || part.name == "image[]") {
      if (!spec.init_image.empty())
        return absl::InvalidArgumentError("image: one picture is taken, not several");
      spec.init_image = part.data;
    } else if (part.name == "mask") {
      ASSIGN_OR_RETURN(spec.mask_image, MaskOf(part.data));
    } else {
      object[part.name] = part.data;
    }
  }
  if (spec.init_image.empty()) return absl::InvalidArgumentError("image: is required");
  JsonFields fields(object);
  ReadCommon(limits, &fields, &request);
  spec.options.denoise = fields.Number("denoise", spec.mask_image.empty() ? kEditDenoise : 1, 0, 1);
  RETURN_IF_ERROR(fields.status());
  return request;
}

}  // namespace distorch
