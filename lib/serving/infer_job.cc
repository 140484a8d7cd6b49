#include "lib/serving/infer_job.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/pipeline/image_codec.h"
#include "lib/pipeline/png_codec.h"
#include "lib/pipeline/pixels.h"
#include "lib/serving/sampling_request.h"

namespace distorch {
namespace {

constexpr int kMinSide = 16, kMaxSide = 8192, kMaxBatch = 64;

absl::Status OutOfRange(std::string_view field, int64_t value, int64_t low, int64_t high) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", value, " is out of range; allowed: ", low, " to ", high));
}

// [1, H, W, 3] in 0…1.
absl::StatusOr<at::Tensor> DecodePicture(std::string_view field, const std::string& png,
                                         int64_t height, int64_t width) {
  auto decoded = DecodeImage(png);
  if (!decoded.ok()) return Within(field, decoded.status());
  return RunTorchOr<at::Tensor>(
      [&] { return pipeline::ResizeCover(pipeline::FromImage8(*decoded), height, width); });
}

}  // namespace

InferJob::InferJob(const InferSpec& spec, Pin model, Pin clip, Pin vae, CancelTokenPtr cancel,
                   InferCallbacks callbacks, Observer* observer)
    : spec_(spec),
      model_(std::move(model)),
      clip_(std::move(clip)),
      vae_(std::move(vae)),
      cancel_(std::move(cancel)),
      callbacks_(std::move(callbacks)),
      observer_(observer) {}

absl::Status InferJob::CheckSize() const {
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
  if (!spec_.image_format.empty() && spec_.image_format != "png") {
    return absl::InvalidArgumentError(
        absl::StrCat("image_format: \"", spec_.image_format, "\" is not supported; allowed: png"));
  }
  if (!spec_.mask_image.empty() && spec_.init_image.empty()) {
    return absl::InvalidArgumentError("mask_image: needs an init_image to repaint");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<InferJob>> InferJob::Create(const InferSpec& spec, Pin model,
                                                           Pin clip, Pin vae, CancelTokenPtr cancel,
                                                           InferCallbacks callbacks,
                                                           Observer* observer) {
  auto job = std::shared_ptr<InferJob>(new InferJob(spec, std::move(model), std::move(clip),
                                                    std::move(vae), std::move(cancel),
                                                    std::move(callbacks), observer));
  RETURN_IF_ERROR(job->CheckSize());
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
  ASSIGN_OR_RETURN(inputs_.positive, clip_->clip().Encode(spec_.prompt, stop));
  RETURN_IF_ERROR(cancel_->Check());
  ASSIGN_OR_RETURN(inputs_.negative, clip_->clip().Encode(spec_.negative_prompt, stop));
  return absl::OkStatus();
}

absl::Status InferJob::EncodeInitImage() {
  ASSIGN_OR_RETURN(const at::Tensor image,
                   DecodePicture("init_image", spec_.init_image, spec_.height, spec_.width));
  ASSIGN_OR_RETURN(const at::Tensor latent, vae_->vae().Encode(image, *cancel_));
  inputs_.latent = latent.repeat({spec_.batch_size, 1, 1, 1});
  if (spec_.mask_image.empty()) return absl::OkStatus();

  ASSIGN_OR_RETURN(const at::Tensor picture,
                   DecodePicture("mask_image", spec_.mask_image, spec_.height, spec_.width));
  const at::Tensor mask =
      picture.select(3, 0).unsqueeze(1).contiguous();  // [1, 1, H, W]; white is repainted
  inputs_.noise_mask = mask;
  return model_->model().concat_channels() > 0 ? ConditionOnMask(image, mask) : absl::OkStatus();
}

absl::Status InferJob::ConditionOnMask(const at::Tensor& image, const at::Tensor& mask) {
  const models::LatentFormat& format = model_->model().latent_format();
  const at::Tensor covered = mask.round().permute({0, 2, 3, 1});  // [1, H, W, 1]
  // Grey is the middle of the VAE's range, where the published inpainting models were shown
  // "nothing".
  const at::Tensor visible = (image - 0.5) * (1 - covered) + 0.5;
  ASSIGN_OR_RETURN(const at::Tensor latent, vae_->vae().Encode(visible, *cancel_));
  const at::Tensor small =
      at::upsample_bilinear2d(mask, {latent.size(2), latent.size(3)}, false).round();
  inputs_.positive.concat = at::cat({small, latent * format.scale}, 1);
  inputs_.negative.concat = inputs_.positive.concat;
  return absl::OkStatus();
}

absl::Status InferJob::Sample() {
  const models::DiffusionModel& model = model_->model();
  const auto on_step = ReportSteps(callbacks_, spec_.preview_every, model.latent_format(),
                                   observer_, model_->family);
  ASSIGN_OR_RETURN(latent_, pipeline::SampleLatent(model, inputs_, *cancel_, on_step));
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
  parameters.masked = !spec_.mask_image.empty();
  parameters.denoise = options.denoise;
  parameters.version = "distorchd " DISTORCHD_VERSION;
  return parameters;
}

absl::Status InferJob::Decode() {
  ASSIGN_OR_RETURN(const at::Tensor images, vae_->vae().Decode(latent_, *cancel_));
  const ImageText text = GenerationText(Parameters());
  for (int64_t i = 0; i < images.size(0); ++i) {
    ASSIGN_OR_RETURN(std::string png, EncodePng(pipeline::ToImage8(images[i]), text));
    png_.push_back(std::move(png));
  }
  return absl::OkStatus();
}

}  // namespace distorch
