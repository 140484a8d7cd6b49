#include "lib/serving/infer_job.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/pipeline/image_codec.h"
#include "lib/pipeline/inpaint.h"
#include "lib/pipeline/pixels.h"
#include "lib/serving/sampling_request.h"
#include "lib/serving/step_times.h"
#include "lib/serving/tensor_convert.h"

namespace distorch {
namespace {

constexpr int kMinSide = 16, kMaxSide = 8192, kMaxBatch = 64;

absl::Status OutOfRange(std::string_view field, int64_t value, int64_t low, int64_t high) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", value, " is out of range; allowed: ", low, " to ", high));
}

absl::StatusOr<Image8> DecodePicture(std::string_view field, const std::string& bytes) {
  absl::StatusOr<Image8> picture = DecodeImage(bytes);
  if (!picture.ok()) return Within(field, picture.status());
  return picture;
}

// The two stacks as one: an adapter that only one component has left the other as it is.
std::vector<GenerationParameters::Lora> MergedLoras(const std::vector<AppliedLora>& model,
                                                    const std::vector<AppliedLora>& clip) {
  std::vector<GenerationParameters::Lora> merged;
  size_t next = 0;  // of clip's
  for (const AppliedLora& lora : model) {
    const auto same =
        std::find_if(clip.begin() + static_cast<std::ptrdiff_t>(next), clip.end(),
                     [&](const AppliedLora& other) { return other.name == lora.name; });
    if (same == clip.end()) {
      merged.push_back({lora.name, lora.strength, 0});
      continue;
    }
    for (; clip.begin() + static_cast<std::ptrdiff_t>(next) != same; ++next)
      merged.push_back({clip[next].name, 0, clip[next].strength});
    merged.push_back({lora.name, lora.strength, same->strength});
    ++next;
  }
  for (; next < clip.size(); ++next) merged.push_back({clip[next].name, 0, clip[next].strength});
  return merged;
}

}  // namespace

InferJob::InferJob(const InferSpec& spec, Pin model, Pin clip, Pin vae, CancelTokenPtr cancel,
                   InferCallbacks callbacks, const InferServices& services)
    : spec_(spec),
      model_(std::move(model)),
      clip_(std::move(clip)),
      vae_(std::move(vae)),
      cancel_(std::move(cancel)),
      callbacks_(std::move(callbacks)),
      services_(services),
      embeddings_(services.embeddings) {}

absl::Status InferJob::CheckFields() const {
  const int64_t unit = model_->model().latent_format().downscale;
  for (const auto& [field, value] :
       {std::pair{"width", spec_.width}, std::pair{"height", spec_.height}}) {
    if (value < kMinSide || value > kMaxSide) return OutOfRange(field, value, kMinSide, kMaxSide);
    if (value % unit != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": ", value, " is not a multiple of ", unit));
    }
  }
  if (spec_.batch_size < 1 || spec_.batch_size > kMaxBatch) {
    return OutOfRange("batch_size", spec_.batch_size, 1, kMaxBatch);
  }
  RETURN_IF_ERROR(CheckPrompt("prompt", spec_.prompt));
  RETURN_IF_ERROR(CheckPrompt("negative_prompt", spec_.negative_prompt));
  if (!ImageFormatByName(spec_.image_format)) {
    return absl::InvalidArgumentError(
        absl::StrCat("image_format: \"", spec_.image_format,
                     "\" is not supported; allowed: ", ImageFormatNames()));
  }
  RETURN_IF_ERROR(CheckTileSize(spec_.tile_size));
  if (!spec_.mask_image.empty() && spec_.init_image.empty()) {
    return absl::InvalidArgumentError("mask_image: needs an init_image to repaint");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<InferJob>> InferJob::Create(const InferSpec& spec, Pin model,
                                                           Pin clip, Pin vae, CancelTokenPtr cancel,
                                                           InferCallbacks callbacks,
                                                           const InferServices& services) {
  auto job = std::shared_ptr<InferJob>(new InferJob(spec, std::move(model), std::move(clip),
                                                    std::move(vae), std::move(cancel),
                                                    std::move(callbacks), services));
  RETURN_IF_ERROR(job->CheckFields());
  RETURN_IF_ERROR(services.teams->Check(spec.options.parallel));
  ASSIGN_OR_RETURN(job->inputs_.args, ToSampleArgs(spec.options, {}));
  job->inputs_.cfg = spec.options.cfg;
  const models::LatentFormat& format = job->model_->model().latent_format();
  ASSIGN_OR_RETURN(
      job->inputs_.latent, RunTorchOr<at::Tensor>([&] {
        return at::zeros({spec.batch_size, format.channels, spec.height / format.downscale,
                          spec.width / format.downscale});
      }));
  return job;
}

absl::Status InferJob::EncodePrompts() {
  const int stop = clip_.stop_at_layer();
  ASSIGN_OR_RETURN(inputs_.positive, clip_->clip().Encode(spec_.prompt, stop, &embeddings_));
  if (spec_.options.guidance) inputs_.positive.guidance = spec_.options.guidance;
  RETURN_IF_ERROR(cancel_->Check());
  ASSIGN_OR_RETURN(inputs_.negative,
                   clip_->clip().Encode(spec_.negative_prompt, stop, &embeddings_));
  return absl::OkStatus();
}

pipeline::VaeOptions InferJob::VaeOptions(bool by_tiles) const {
  return {.tile_size = spec_.tile_size, .falls_back = by_tiles};
}

absl::Status InferJob::EncodeInitImage(bool by_tiles) {
  ASSIGN_OR_RETURN(const Image8 picture, DecodePicture("init_image", spec_.init_image));
  ASSIGN_OR_RETURN(const at::Tensor image, RunTorchOr<at::Tensor>([&] {
                     return pipeline::ResizeCover(pipeline::FromImage8(picture), spec_.height,
                                                  spec_.width);
                   }));
  ASSIGN_OR_RETURN(const at::Tensor latent,
                   pipeline::EncodeImages(vae_->vae(), image, VaeOptions(by_tiles), *cancel_));
  inputs_.latent = latent.repeat({spec_.batch_size, 1, 1, 1});
  ASSIGN_OR_RETURN(inputs_.noise_mask, Mask(picture));
  if (pipeline::TakesPicture(model_->model())) return ConditionOnPicture(latent);
  if (!inputs_.noise_mask.defined() || !pipeline::TakesMask(model_->model()))
    return absl::OkStatus();
  return ConditionOnMask(image, inputs_.noise_mask, VaeOptions(by_tiles));
}

absl::StatusOr<at::Tensor> InferJob::Mask(const Image8& picture) const {
  std::optional<Image8> drawn;
  if (!spec_.mask_image.empty()) {
    ASSIGN_OR_RETURN(drawn, DecodePicture("mask_image", spec_.mask_image));
  }
  return RunTorchOr<at::Tensor>([&]() -> at::Tensor {
    at::Tensor mask = drawn ? pipeline::MaskFromColour(*drawn) : pipeline::MaskFromAlpha(picture);
    if (!mask.defined()) return mask;
    // A mask covers its picture, whatever its own size; then it is cropped as the picture is.
    mask = pipeline::Resize(mask, picture.height, picture.width);
    return pipeline::ResizeCover(mask, spec_.height, spec_.width).permute({0, 3, 1, 2});
  });
}

absl::Status InferJob::ConditionOnMask(const at::Tensor& image, const at::Tensor& mask,
                                       const pipeline::VaeOptions& options) {
  const models::DiffusionModel& model = model_->model();
  ASSIGN_OR_RETURN(const at::Tensor visible,
                   RunTorchOr<at::Tensor>([&] { return pipeline::HideUnder(image, mask); }));
  ASSIGN_OR_RETURN(const at::Tensor latent,
                   pipeline::EncodeImages(vae_->vae(), visible, options, *cancel_));
  ASSIGN_OR_RETURN(inputs_.positive.concat, RunTorchOr<at::Tensor>([&] {
                     return pipeline::ConcatOf(model, model.latent_format().ToModel(latent), mask);
                   }));
  inputs_.negative.concat = inputs_.positive.concat;
  return absl::OkStatus();
}

absl::Status InferJob::ConditionOnPicture(const at::Tensor& latent) {
  ASSIGN_OR_RETURN(inputs_.positive.concat, RunTorchOr<at::Tensor>([&] {
                     return pipeline::ConcatOfPicture(model_->model(), latent);
                   }));
  inputs_.negative.concat = inputs_.positive.concat;
  if (spec_.options.denoise < 1 || inputs_.noise_mask.defined()) return absl::OkStatus();
  return RunTorch([&] {
    inputs_.latent = at::zeros_like(inputs_.latent);
    return absl::OkStatus();
  });
}

absl::Status InferJob::Sample() {
  const models::DiffusionModel& model = model_->model();
  StepTimes times;
  const auto on_step =
      times.Around(ReportSteps(callbacks_, spec_.preview_every, model.latent_format(),
                               services_.preview_decoders, services_.observer, model_->family));
  ASSIGN_OR_RETURN(const pipeline::Team team,
                   services_.teams->For(*model_, spec_.options.parallel));
  ASSIGN_OR_RETURN(latent_, pipeline::SampleLatent(model, inputs_, *cancel_, on_step, team));
  if (team.mates.empty()) times.Teach(*model_, inputs_);
  return absl::OkStatus();
}

GenerationParameters InferJob::Parameters() const {
  const SamplingOptions& options = spec_.options;
  GenerationParameters parameters;
  parameters.prompt = spec_.prompt;
  parameters.negative_prompt = spec_.negative_prompt;
  parameters.ckpt_name = model_->ckpt_name;
  for (const Pin* pin : {&model_, &clip_, &vae_}) {
    const LoaderFields& fields = (*pin)->fields;
    parameters.loader_fields.insert(parameters.loader_fields.end(), fields.begin(), fields.end());
  }
  parameters.loras = MergedLoras(model_->loras, clip_->loras);
  parameters.stop_at_clip_layer = clip_.stop_at_layer();
  parameters.seed = options.seed;
  parameters.steps = options.steps;
  parameters.cfg = options.cfg;
  parameters.sampler_name = options.sampler_name;
  parameters.scheduler = options.scheduler;
  parameters.guidance = options.guidance;
  parameters.width = spec_.width;
  parameters.height = spec_.height;
  parameters.batch_size = spec_.batch_size;
  parameters.from_image = has_init_image();
  parameters.masked = inputs_.noise_mask.defined();
  if (inputs_.positive.concat.defined()) {
    parameters.shown = pipeline::TakesPicture(model_->model())
                           ? GenerationParameters::Shown::kPicture
                           : GenerationParameters::Shown::kMasked;
  }
  parameters.denoise = options.denoise;
  parameters.version = "distorchd " DISTORCHD_VERSION;
  return parameters;
}

void InferJob::AddPixels(const Image8& image) {
  if (!pixels_) pixels_ = HostTensor{DType::kU8, {0, image.height, image.width, 3}, {}};
  ++pixels_->shape[0];
  pixels_->data.append(image.pixels.begin(), image.pixels.end());
}

absl::Status InferJob::Decode(bool by_tiles) {
  if (spec_.outputs.latent) latent_out_ = FromTorch(latent_);
  if (!decodes()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const at::Tensor images,
                   pipeline::DecodeLatents(vae_->vae(), latent_, VaeOptions(by_tiles), *cancel_));
  const ImageText text = GenerationText(Parameters());
  const ImageFormat format = *ImageFormatByName(spec_.image_format);  // checked with the fields
  for (int64_t i = 0; i < images.size(0); ++i) {
    const Image8 image = pipeline::ToImage8(images[i]);
    if (spec_.outputs.pixels) AddPixels(image);
    if (!spec_.outputs.files) continue;
    ASSIGN_OR_RETURN(std::string file, EncodeImage(image, format, text));
    png_.push_back(std::move(file));
  }
  return absl::OkStatus();
}

}  // namespace distorch
