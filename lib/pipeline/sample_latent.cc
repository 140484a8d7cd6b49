#include "lib/pipeline/sample_latent.h"

#include <ATen/ATen.h>

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/pipeline/inpaint.h"
#include "lib/sampling/guidance.h"
#include "lib/sampling/sampler.h"

namespace distorch::pipeline {
namespace {

// Contexts of 77 and 154 tokens can share a batch where the model lets the shorter one be repeated;
// but a much longer one costs more than a second pass.
constexpr int64_t kMaxRepeats = 4;

at::Tensor Expand(const at::Tensor& t, int64_t batch) {
  if (!t.defined() || t.size(0) == batch) return t;
  std::vector<int64_t> sizes(static_cast<size_t>(t.dim()), -1);
  sizes[0] = batch;
  return t.expand(sizes);
}

// `first` then `second` as one conditioning of 2N items, or nothing when `model` cannot take them
// together.
std::optional<text::Conditioning> Join(const models::DiffusionModel& model,
                                       const text::Conditioning& first,
                                       const text::Conditioning& second, int64_t batch) {
  if (first.concat.defined() != second.concat.defined() ||
      first.pooled.defined() != second.pooled.defined() || first.guidance != second.guidance ||
      first.size != second.size) {
    return std::nullopt;
  }
  const int64_t a = first.cross_attention.size(1), b = second.cross_attention.size(1);
  if (a != b && !model.context_may_repeat()) return std::nullopt;
  const int64_t length = std::lcm(a, b);
  if (length > kMaxRepeats * std::min(a, b)) return std::nullopt;
  auto repeat = [&](const at::Tensor& t) {
    return Expand(t, batch).repeat({1, length / t.size(1), 1});
  };
  text::Conditioning joined = first;
  joined.cross_attention = at::cat({repeat(first.cross_attention), repeat(second.cross_attention)});
  if (first.pooled.defined())
    joined.pooled = at::cat({Expand(first.pooled, batch), Expand(second.pooled, batch)});
  if (first.concat.defined())
    joined.concat = at::cat({Expand(first.concat, batch), Expand(second.concat, batch)});
  return joined;
}

// Evaluates both conditionings, in one batch where possible.
class TwoSidedModel {
 public:
  TwoSidedModel(const models::DiffusionModel& model, const SampleInputs& inputs,
                const CancelToken& cancel)
      : model_(model),
        cancel_(cancel),
        positive_(model.Prepare(inputs.positive, models::GuidanceSide::kPositive,
                                inputs.latent.size(2), inputs.latent.size(3))),
        negative_(model.Prepare(inputs.negative, models::GuidanceSide::kNegative,
                                inputs.latent.size(2), inputs.latent.size(3))),
        joined_(Join(model, negative_, positive_, inputs.latent.size(0))) {}

  absl::StatusOr<sampling::Predictions> operator()(const at::Tensor& x, double sigma,
                                                   bool with_uncond) const {
    RETURN_IF_ERROR(cancel_.Check());
    if (!with_uncond) return sampling::Predictions{model_.Denoise(x, sigma, positive_), {}};
    if (!joined_) {
      at::Tensor cond = model_.Denoise(x, sigma, positive_);
      RETURN_IF_ERROR(cancel_.Check());
      return sampling::Predictions{std::move(cond), model_.Denoise(x, sigma, negative_)};
    }
    const std::vector<at::Tensor> halves =
        model_.Denoise(at::cat({x, x}), sigma, *joined_).chunk(2);
    return sampling::Predictions{halves[1], halves[0]};
  }

 private:
  const models::DiffusionModel& model_;
  const CancelToken& cancel_;
  const text::Conditioning positive_, negative_;
  const std::optional<text::Conditioning> joined_;
};

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
                                        const StepObserver& observer) {
  RETURN_IF_ERROR(CheckInputs(model, given));
  return RunTorchOr<at::Tensor>([&]() -> absl::StatusOr<at::Tensor> {
    SampleInputs inputs = given;
    const at::Device device = model.compute().device;
    const models::LatentFormat& format = model.latent_format();
    // A latent of zeros stands for an unknown image in every space.
    const at::Tensor latent =
        inputs.latent.any().item<bool>() ? format.ToModel(inputs.latent) : inputs.latent;
    ShowWhatIsKept(model, latent, &inputs);
    const sampling::GuidedModel guided =
        sampling::ClassifierFreeGuidance(TwoSidedModel(model, inputs, cancel), inputs.cfg,
                                         sampling::SamplerNeedsUncond(inputs.args.sampler_name));
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
