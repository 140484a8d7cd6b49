#include "lib/sampling/sample.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/sampling/noise.h"
#include "lib/sampling/schedule.h"

namespace distorch::sampling {
namespace {

constexpr int kMaxSteps = 10000;
constexpr double kMaxScheduledSteps =
    1e6;                                 // bounds the memory and time a tiny `denoise` can ask for
constexpr double kFullDenoise = 0.9999;  // above it a schedule is not extended

absl::Status CheckStep(const char* field, const std::optional<int>& step) {
  if (!step.has_value() || (*step >= 0 && *step <= kMaxSteps)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", *step, "; allowed: 0 to ", kMaxSteps));
}

absl::Status CheckSchedule(const SampleArgs& args) {
  if (args.steps < 1 || args.steps > kMaxSteps) {
    return absl::InvalidArgumentError(
        absl::StrCat("steps: ", args.steps, "; allowed: 1 to ", kMaxSteps));
  }
  if (!(args.denoise >= 0 && args.denoise <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("denoise: ", args.denoise, "; allowed: 0 to 1"));
  }
  if (args.denoise > 0 && args.steps / args.denoise > kMaxScheduledSteps) {
    return absl::InvalidArgumentError(
        absl::StrCat("denoise: ", args.denoise, " is too small for ", args.steps,
                     " steps; steps / denoise may be at most ", kMaxScheduledSteps));
  }
  return CheckScheduler(args.scheduler);
}

absl::Status CheckSigmas(const std::vector<double>& sigmas) {
  if (sigmas.size() > kMaxSteps + 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("sigmas: ", sigmas.size(), " values; allowed: at most ", kMaxSteps + 1));
  }
  for (size_t i = 0; i < sigmas.size(); ++i) {
    const float sigma = static_cast<float>(sigmas[i]);
    const bool last = i + 1 == sigmas.size();
    if (!std::isfinite(sigma) || sigma < 0 || (sigma == 0 && !last)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "sigmas[", i, "]: ", sigmas[i], "; allowed: finite numbers above 0, the last may be 0"));
    }
  }
  return absl::OkStatus();
}

// The whole schedule, before start_step and end_step.
absl::StatusOr<std::vector<float>> Schedule(const ModelSampling& sampling, const SampleArgs& args) {
  if (!args.sigmas.empty()) return std::vector<float>(args.sigmas.begin(), args.sigmas.end());
  if (args.denoise <= 0) return std::vector<float>();
  ASSIGN_OR_RETURN(const Sampler* sampler, FindSampler(args.sampler_name));
  const bool whole = args.denoise > kFullDenoise;
  const int scheduled = whole ? args.steps : static_cast<int>(args.steps / args.denoise);
  ASSIGN_OR_RETURN(std::vector<float> sigmas,
                   CalculateSigmas(sampling, args.scheduler,
                                   scheduled + (sampler->skips_penultimate_sigma ? 1 : 0)));
  if (sampler->skips_penultimate_sigma) sigmas.erase(sigmas.end() - 2);
  const size_t kept = static_cast<size_t>(args.steps) + 1;
  if (!whole && sigmas.size() > kept) sigmas.erase(sigmas.begin(), sigmas.end() - kept);
  return sigmas;
}

std::string ShapeOf(const at::Tensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ", "), "]");
}

// Resized to the latent's height and width, over its channels and its batch (repeated or cut).
absl::StatusOr<at::Tensor> PrepareMask(const at::Tensor& mask, const at::Tensor& latent) {
  if (mask.dim() < 2 || mask.dim() > 4 || mask.numel() == 0) {
    return absl::InvalidArgumentError(absl::StrCat("noise_mask: shape ", ShapeOf(mask),
                                                   "; allowed: [H, W], [N, H, W] or [N, 1, H, W]"));
  }
  at::Tensor prepared =
      mask.to(at::kCPU, at::kFloat).reshape({-1, 1, mask.size(-2), mask.size(-1)});
  prepared = at::upsample_bilinear2d(prepared, latent.sizes().slice(2), /*align_corners=*/false);
  const int64_t batch = latent.size(0);
  const int64_t repeats = (batch + prepared.size(0) - 1) / prepared.size(0);
  prepared = prepared.repeat({repeats, latent.size(1), 1, 1}).slice(0, 0, batch);
  return prepared.to(latent.device());
}

// `model` confined to the mask: it sees the kept part noised to each level, and its prediction of
// it is replaced.
GuidedModel Masked(const ModelSampling& sampling, const GuidedModel& model,
                   const at::Tensor& latent, const at::Tensor& noise, const at::Tensor& mask) {
  const at::Tensor kept = 1 - mask;
  return [&sampling, &model, latent, noise, mask, kept](const at::Tensor& x,
                                                        double sigma) -> absl::StatusOr<Denoised> {
    const at::Tensor shown =
        (x * mask).add_(sampling.NoiseScaling(sigma, noise, latent).mul_(kept));
    ASSIGN_OR_RETURN(Denoised denoised, model(shown, sigma));
    denoised.guided = (denoised.guided * mask).add_(latent * kept);
    return denoised;
  };
}

// Whether a run starts where nothing of the latent is left.
bool StartsFromNoise(const ModelSampling& sampling, double sigma) {
  const double highest = sampling.sigma_max();
  return sigma > highest || highest - sigma <= 1e-5 * highest;
}

absl::StatusOr<at::Tensor> NoiseFor(const at::Tensor& latent,
                                    const std::optional<at::Tensor>& given,
                                    const SampleArgs& args) {
  if (!args.add_noise) return at::zeros_like(latent);
  if (!given.has_value()) return PrepareNoise(latent.sizes(), args.seed).to(latent.device());
  if (given->sizes() != latent.sizes()) {
    return absl::InvalidArgumentError(absl::StrCat("noise: shape ", ShapeOf(*given),
                                                   "; allowed: the latent's, ", ShapeOf(latent)));
  }
  return given->to(latent.device(), at::kFloat);
}

absl::StatusOr<at::Tensor> SampleInTorch(const ModelSampling& sampling, const GuidedModel& model,
                                         const at::Tensor& given_latent,
                                         const std::optional<at::Tensor>& given_noise,
                                         const std::optional<at::Tensor>& noise_mask,
                                         const SampleArgs& args, const StepCallback& on_step) {
  if (given_latent.dim() != 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("latent: shape ", ShapeOf(given_latent), "; allowed: [N, C, H, W]"));
  }
  ASSIGN_OR_RETURN(std::vector<float> sigmas, SigmasFor(sampling, args));
  ASSIGN_OR_RETURN(const Sampler* sampler, FindSampler(args.sampler_name));
  const at::Tensor latent = given_latent.to(at::kFloat);
  if (sigmas.empty()) return latent;
  if (sigmas.back() == 0) sigmas.back() = sampler->terminal_sigma;
  const float first = sigmas.front(), last = sigmas.back();

  ASSIGN_OR_RETURN(const at::Tensor noise, NoiseFor(latent, given_noise, args));
  GuidedModel masked;
  if (noise_mask.has_value()) {
    ASSIGN_OR_RETURN(const at::Tensor mask, PrepareMask(*noise_mask, latent));
    const at::Tensor mask_noise =
        sampler->fresh_mask_noise ? PrepareNoise(latent.sizes(), args.seed + 1).to(latent.device())
                                  : noise;
    masked = Masked(sampling, model, latent, mask_noise, mask);
  }
  at::Tensor x = sampling.NoiseScaling(first, noise, latent, StartsFromNoise(sampling, first));
  SamplerRun run(sampling, std::move(sigmas), args.seed, masked ? masked : model, on_step);
  ASSIGN_OR_RETURN(x, sampler->function(run, std::move(x)));
  return sampling.InverseNoiseScaling(last, x);
}

}  // namespace

absl::Status ValidateSampleArgs(const SampleArgs& args) {
  RETURN_IF_ERROR(FindSampler(args.sampler_name).status());
  RETURN_IF_ERROR(args.sigmas.empty() ? CheckSchedule(args) : CheckSigmas(args.sigmas));
  RETURN_IF_ERROR(CheckStep("start_step", args.start_step));
  return CheckStep("end_step", args.end_step);
}

absl::StatusOr<std::vector<float>> SigmasFor(const ModelSampling& sampling,
                                             const SampleArgs& args) {
  RETURN_IF_ERROR(ValidateSampleArgs(args));
  ASSIGN_OR_RETURN(std::vector<float> sigmas, Schedule(sampling, args));
  if (args.end_step.has_value() && *args.end_step + 1u < sigmas.size()) {
    sigmas.resize(*args.end_step + 1);
    if (args.force_full_denoise) sigmas.back() = 0;
  }
  if (args.start_step.has_value()) {
    sigmas.erase(sigmas.begin(),
                 sigmas.begin() + std::min<size_t>(*args.start_step, sigmas.size()));
  }
  if (sigmas.size() < 2) sigmas.clear();
  return sigmas;
}

bool SamplerNeedsUncond(const std::string& sampler_name) {
  const absl::StatusOr<const Sampler*> sampler = FindSampler(sampler_name);
  return sampler.ok() && (*sampler)->needs_uncond;
}

absl::StatusOr<at::Tensor> Sample(const ModelSampling& sampling, const GuidedModel& model,
                                  const at::Tensor& latent, const std::optional<at::Tensor>& noise,
                                  const std::optional<at::Tensor>& noise_mask,
                                  const SampleArgs& args, const StepCallback& on_step) {
  return RunTorchOr<at::Tensor>(
      [&] { return SampleInTorch(sampling, model, latent, noise, noise_mask, args, on_step); });
}

}  // namespace distorch::sampling
