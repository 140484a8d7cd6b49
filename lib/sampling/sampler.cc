#include "lib/sampling/sampler.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"
#include "lib/sampling/solvers.h"

namespace distorch::sampling {
namespace {

// UniPC's published code ends at t = 0.001.
constexpr float kUniPcEnd = 0.001f;

// The names ending in _gpu exist for clients' sake: elsewhere they draw noise on the accelerator,
// and give another image on every kind of device.
constexpr Sampler kSamplers[] = {
    {.name = "euler", .function = SampleEuler},
    {.name = "euler_cfg_pp", .function = SampleEulerCfgPp, .needs_uncond = true},
    {.name = "euler_ancestral", .function = SampleEulerAncestral},
    {.name = "euler_ancestral_cfg_pp", .function = SampleEulerAncestralCfgPp, .needs_uncond = true},
    {.name = "heun", .function = SampleHeun, .evaluations = 2},
    {.name = "heunpp2", .function = SampleHeunPp2, .evaluations = 0},
    {.name = "dpm_2", .function = SampleDpm2, .skips_penultimate_sigma = true, .evaluations = 2},
    {.name = "dpm_2_ancestral",
     .function = SampleDpm2Ancestral,
     .skips_penultimate_sigma = true,
     .evaluations = 2},
    {.name = "lms", .function = SampleLms},
    {.name = "dpm_fast", .function = SampleDpmFast, .evaluations = 0},
    {.name = "dpm_adaptive", .function = SampleDpmAdaptive, .evaluations = 0},
    {.name = "dpmpp_2s_ancestral", .function = SampleDpmPp2sAncestral, .evaluations = 2},
    {.name = "dpmpp_2s_ancestral_cfg_pp",
     .function = SampleDpmPp2sAncestralCfgPp,
     .needs_uncond = true,
     .evaluations = 2},
    {.name = "dpmpp_sde", .function = SampleDpmPpSde, .evaluations = 2},
    {.name = "dpmpp_sde_gpu", .function = SampleDpmPpSde, .evaluations = 2},
    {.name = "dpmpp_2m", .function = SampleDpmPp2m},
    {.name = "dpmpp_2m_cfg_pp", .function = SampleDpmPp2mCfgPp, .needs_uncond = true},
    {.name = "dpmpp_2m_sde", .function = SampleDpmPp2mSde},
    {.name = "dpmpp_2m_sde_gpu", .function = SampleDpmPp2mSde},
    {.name = "dpmpp_2m_sde_heun", .function = SampleDpmPp2mSdeHeun},
    {.name = "dpmpp_2m_sde_heun_gpu", .function = SampleDpmPp2mSdeHeun},
    {.name = "dpmpp_3m_sde", .function = SampleDpmPp3mSde},
    {.name = "dpmpp_3m_sde_gpu", .function = SampleDpmPp3mSde},
    {.name = "ddpm", .function = SampleDdpm},
    {.name = "lcm", .function = SampleLcm},
    {.name = "ipndm", .function = SampleIpndm},
    {.name = "ipndm_v", .function = SampleIpndmV},
    {.name = "deis", .function = SampleDeis},
    {.name = "res_multistep", .function = SampleResMultistep},
    {.name = "res_multistep_cfg_pp", .function = SampleResMultistepCfgPp, .needs_uncond = true},
    {.name = "res_multistep_ancestral", .function = SampleResMultistepAncestral},
    {.name = "res_multistep_ancestral_cfg_pp",
     .function = SampleResMultistepAncestralCfgPp,
     .needs_uncond = true},
    {.name = "gradient_estimation", .function = SampleGradientEstimation},
    {.name = "gradient_estimation_cfg_pp",
     .function = SampleGradientEstimationCfgPp,
     .needs_uncond = true},
    {.name = "er_sde", .function = SampleErSde},
    {.name = "seeds_2", .function = SampleSeeds2, .evaluations = 2},
    {.name = "seeds_3", .function = SampleSeeds3, .evaluations = 3},
    {.name = "sa_solver", .function = SampleSaSolver},
    {.name = "sa_solver_pece", .function = SampleSaSolverPece, .evaluations = 2},
    // DDIM (Song et al., 2020) with eta = 0 is Euler's method in sigma (Karras et al., 2022,
    // section 3).
    {.name = "ddim", .function = SampleEuler, .fresh_mask_noise = true},
    {.name = "uni_pc",
     .function = SampleUniPcBh1,
     .skips_penultimate_sigma = true,
     .terminal_sigma = kUniPcEnd},
    {.name = "uni_pc_bh2",
     .function = SampleUniPcBh2,
     .skips_penultimate_sigma = true,
     .terminal_sigma = kUniPcEnd},
};

constexpr auto kNames = [] {
  std::array<std::string_view, std::size(kSamplers)> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = kSamplers[i].name;
  return names;
}();

}  // namespace

SamplerRun::SamplerRun(const ModelSampling& sampling, std::vector<float> sigmas, uint64_t seed,
                       const GuidedModel& model, const StepCallback& on_step)
    : sampling_(sampling),
      sigmas_(std::move(sigmas)),
      seed_(seed),
      model_(model),
      on_step_(on_step),
      noise_(seed) {}

absl::StatusOr<at::Tensor> SamplerRun::Denoise(const at::Tensor& x, float sigma) const {
  ASSIGN_OR_RETURN(Denoised denoised, model_(x, sigma));
  return std::move(denoised.guided);
}

absl::StatusOr<Denoised> SamplerRun::DenoiseBoth(const at::Tensor& x, float sigma,
                                                 bool with_uncond) const {
  ASSIGN_OR_RETURN(Denoised denoised, model_(x, sigma));
  if (with_uncond && !denoised.uncond.defined()) {
    return absl::InternalError(
        "the sampler needs the unconditional prediction, which the model did not give");
  }
  return denoised;
}

absl::Status SamplerRun::StepDone(int index, const at::Tensor& x,
                                  const at::Tensor& denoised) const {
  if (!on_step_) return absl::OkStatus();
  return on_step_(index + 1, steps(), x, denoised);
}

absl::StatusOr<const Sampler*> FindSampler(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampler_name: unknown '", name, "'; allowed: ", absl::StrJoin(kNames, ", ")));
  }
  return &kSamplers[found - kNames.begin()];
}

std::span<const std::string_view> SamplerNames() { return kNames; }

}  // namespace distorch::sampling
