#include "lib/pipeline/sample_latent.h"

#include <ATen/ATen.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/pipeline/inpaint.h"
#include "lib/pipeline/two_sided_model.h"
#include "lib/sampling/guidance.h"
#include "lib/sampling/sampler.h"

namespace distorch::pipeline {
namespace {

std::string Shape(const at::Tensor& t) { return ShapeString(t.sizes().vec()); }

absl::Status CheckInputs(const models::DiffusionModel& model, const SampleInputs& inputs) {
  const at::Tensor& latent = inputs.latent;
  const int64_t channels = model.latent_format().channels;
  if (latent.dim() != 4 || latent.size(1) != channels || latent.numel() == 0) {
    return absl::InvalidArgumentError(absl::StrCat("latent: shape is ", Shape(latent),
                                                   ", expected [batch, ", channels,
                                                   ", height/8, width/8]"));
  }
  if (inputs.noise.defined() && inputs.noise.sizes() != latent.sizes()) {
    return absl::InvalidArgumentError(absl::StrCat("noise: shape is ", Shape(inputs.noise),
                                                   ", expected the latent's ", Shape(latent)));
  }
  const auto check = [&](std::string_view name, const text::Conditioning& conditioning) {
    absl::Status status =
        model.CheckConditioning(conditioning, latent.size(0), latent.size(2), latent.size(3));
    return status.ok() ? status
                       : absl::Status(status.code(), absl::StrCat(name, ".", status.message()));
  };
  RETURN_IF_ERROR(check("positive", inputs.positive));
  return check("negative", inputs.negative);
}

// An inpainting UNet that was shown no picture sees what the mask keeps. (Flux's sees nothing, in
// the reference, too.)
void ShowWhatIsKept(const models::DiffusionModel& model, const at::Tensor& latent,
                    SampleInputs* inputs) {
  const at::Tensor& mask = inputs->noise_mask;
  if (model.concat_channels() != latent.size(1) + 1) return;
  if (!mask.defined() || mask.dim() < 2 || mask.numel() == 0) return;  // Sample refuses such masks
  const at::Tensor masks = mask.reshape({-1, 1, mask.size(-2), mask.size(-1)});
  const int64_t batch = latent.size(0), repeats = (batch + masks.size(0) - 1) / masks.size(0);
  const at::Tensor per_item = masks.repeat({repeats, 1, 1, 1}).slice(0, 0, batch);
  for (text::Conditioning* side : {&inputs->positive, &inputs->negative}) {
    if (!side->concat.defined()) side->concat = ConcatOf(model, latent, per_item);
  }
}

}  // namespace

absl::StatusOr<at::Tensor> SampleLatent(const models::DiffusionModel& model,
                                        const SampleInputs& given, const CancelToken& cancel,
                                        const StepObserver& observer, const Team& team) {
  RETURN_IF_ERROR(CheckInputs(model, given));
  return RunTorchOr<at::Tensor>([&]() -> absl::StatusOr<at::Tensor> {
    SampleInputs inputs = given;
    const at::Device device = model.compute().device;
    const models::LatentFormat& format = model.latent_format();
    // A latent of zeros stands for an unknown image in every space.
    const at::Tensor latent =
        inputs.latent.any().item<bool>() ? format.ToModel(inputs.latent) : inputs.latent;
    ShowWhatIsKept(model, latent, &inputs);
    ASSIGN_OR_RETURN(const std::unique_ptr<TwoSidedModel> both,
                     TwoSidedModel::Create(model, team, inputs.positive, inputs.negative,
                                           inputs.latent.sizes(), cancel));
    const sampling::GuidedModel guided = sampling::ClassifierFreeGuidance(
        [&both](const at::Tensor& x, double sigma, bool with_uncond) {
          return (*both)(x, sigma, with_uncond);
        },
        inputs.cfg, sampling::SamplerNeedsUncond(inputs.args.sampler_name));
    const auto on_step = [&](int step, int steps, const at::Tensor&, const at::Tensor& denoised) {
      if (observer) observer(step, steps, denoised);
      return cancel.Check();
    };
    std::optional<at::Tensor> noise, mask;
    if (inputs.noise.defined()) noise = inputs.noise.to(device);
    if (inputs.noise_mask.defined()) mask = inputs.noise_mask.to(device);
    ASSIGN_OR_RETURN(const at::Tensor sampled,
                     sampling::Sample(model.sampling(), guided, latent.to(device), noise, mask,
                                      inputs.args, on_step));
    return format.ToUser(sampled.to(at::kCPU)).contiguous();
  });
}

}  // namespace distorch::pipeline
