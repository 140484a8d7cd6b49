// Solvers that remember nothing between two steps.
#include <cmath>

#include "lib/base/status_macros.h"
#include "lib/sampling/solvers.h"

namespace distorch::sampling {
namespace {

// Halfway in log(sigma).
float GeometricMean(float a, float b) {
  const float log_a = std::log(a), log_b = std::log(b);
  return std::exp(log_b - (log_b - log_a) * 0.5f);
}

at::Tensor Renoise(SamplerRun& run, const AncestralStep& step, const at::Tensor& x) {
  return run.Noise(x).mul_(step.up).add_(x, step.scale);
}

// DPM-Solver-2 (Lu et al., 2022, algorithm 1) with r1 = 1/2, in the derivative form of Karras et
// al. (2022).
absl::StatusOr<at::Tensor> MidpointStep(SamplerRun& run, const at::Tensor& x, const at::Tensor& d,
                                        float from, float to) {
  const float middle = GeometricMean(from, to);
  const at::Tensor x_middle = Moved(x, d, middle - from);
  ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x_middle, middle));
  return Moved(x, Derivative(x_middle, middle, denoised), to - from);
}

// CFG++ (Chung et al., 2024, algorithm 2): denoise with guidance, renoise with the unconditional
// prediction.
absl::StatusOr<at::Tensor> EulerCfgPp(SamplerRun& run, at::Tensor x, float eta) {
  const auto alpha_of = [&](float sigma) {
    return sigma * std::exp(HalfLogSnr(run.sampling(), sigma));
  };
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const Denoised denoised, run.DenoiseBoth(x, sigma));
    if (next == 0) {
      x = denoised.guided;
    } else {
      const float alpha = alpha_of(sigma), alpha_next = alpha_of(next);
      const at::Tensor noise = Derivative(x, sigma, denoised.uncond * alpha);
      const AncestralStep step = SplitAncestral(sigma / alpha, next / alpha_next, eta);
      x = (denoised.guided * alpha_next).add_(noise, alpha_next * step.down);
      if (eta > 0) x.add_(run.Noise(x), alpha_next * step.up);
    }
    RETURN_IF_ERROR(run.StepDone(i, x, denoised.guided));
  }
  return x;
}

}  // namespace

// Karras et al. (2022), algorithm 1 without its second-order correction.
absl::StatusOr<at::Tensor> SampleEuler(SamplerRun& run, at::Tensor x) {
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    x = Moved(x, Derivative(x, sigma, denoised), run.sigma(i + 1) - sigma);
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// Ancestral sampling (Song et al., 2021, appendix F) with Euler steps in sigma.
absl::StatusOr<at::Tensor> SampleEulerAncestral(SamplerRun& run, at::Tensor x) {
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    const AncestralStep step = SplitAncestral(run.sampling(), sigma, run.sigma(i + 1));
    if (step.down == 0) {
      x = denoised;
    } else {
      x = Renoise(run, step, Moved(x, Derivative(x, sigma, denoised), step.down - sigma));
    }
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

absl::StatusOr<at::Tensor> SampleEulerCfgPp(SamplerRun& run, at::Tensor x) {
  return EulerCfgPp(run, std::move(x), 0);
}

absl::StatusOr<at::Tensor> SampleEulerAncestralCfgPp(SamplerRun& run, at::Tensor x) {
  return EulerCfgPp(run, std::move(x), 1);
}

// Karras et al. (2022), algorithm 1: Heun's method, Euler's for the last step.
absl::StatusOr<at::Tensor> SampleHeun(SamplerRun& run, at::Tensor x) {
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    at::Tensor d = Derivative(x, sigma, denoised);
    if (next != 0) {
      const at::Tensor x_next = Moved(x, d, next - sigma);
      ASSIGN_OR_RETURN(const at::Tensor denoised_next, run.Denoise(x_next, next));
      d = d.add_(Derivative(x_next, next, denoised_next)).div_(2);
    }
    x = Moved(x, d, next - sigma);
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// Heun++ (github.com/Carzit/sd-webui-samplers-scheduler): the slopes at up to three levels ahead,
// each weighted by its level's share of the first one.
absl::StatusOr<at::Tensor> SampleHeunPp2(SamplerRun& run, at::Tensor x) {
  const float end = run.sigmas().back();
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    at::Tensor d = Derivative(x, sigma, denoised);
    if (next != end) {
      const float after = run.sigma(i + 2);
      const at::Tensor x_2 = Moved(x, d, next - sigma);
      ASSIGN_OR_RETURN(const at::Tensor denoised_2, run.Denoise(x_2, next));
      const at::Tensor d_2 = Derivative(x_2, next, denoised_2);
      if (after == end) {
        const float weight_2 = next / (2 * run.sigma(0));
        d = (d * (1 - weight_2)).add_(d_2, weight_2);
      } else {
        const at::Tensor x_3 = Moved(x_2, d_2, after - next);
        ASSIGN_OR_RETURN(const at::Tensor denoised_3, run.Denoise(x_3, after));
        const float weight_2 = next / (3 * run.sigma(0)), weight_3 = after / (3 * run.sigma(0));
        d = (d * (1 - weight_2 - weight_3))
                .add_(d_2, weight_2)
                .add_(Derivative(x_3, after, denoised_3), weight_3);
      }
    }
    x = Moved(x, d, next - sigma);
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// DPM-Solver-2, Euler's method for the step to 0.
absl::StatusOr<at::Tensor> SampleDpm2(SamplerRun& run, at::Tensor x) {
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    const at::Tensor d = Derivative(x, sigma, denoised);
    if (next == 0) {
      x = Moved(x, d, -sigma);
    } else {
      ASSIGN_OR_RETURN(x, MidpointStep(run, x, d, sigma, next));
    }
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// The same as ancestral sampling: DPM-Solver-2 down, noise up.
absl::StatusOr<at::Tensor> SampleDpm2Ancestral(SamplerRun& run, at::Tensor x) {
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    const at::Tensor d = Derivative(x, sigma, denoised);
    const AncestralStep step = SplitAncestral(run.sampling(), sigma, run.sigma(i + 1));
    if (step.down == 0) {
      x = Moved(x, d, -sigma);
    } else {
      ASSIGN_OR_RETURN(x, MidpointStep(run, x, d, sigma, step.down));
      x = Renoise(run, step, x);
    }
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// Ho et al. (2020), algorithm 2, on the variance-preserving x / sqrt(1 + sigma^2).
absl::StatusOr<at::Tensor> SampleDdpm(SamplerRun& run, at::Tensor x) {
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    const at::Tensor eps = Derivative(x, sigma, denoised);
    const float alpha_bar = 1 / (sigma * sigma + 1), alpha_bar_next = 1 / (next * next + 1);
    const float alpha = alpha_bar / alpha_bar_next;
    x = (x / std::sqrt(1 + sigma * sigma))
            .sub_(eps, (1 - alpha) / std::sqrt(1 - alpha_bar))
            .mul_(std::sqrt(1 / alpha));
    if (next > 0) {
      x.add_(run.Noise(x), std::sqrt((1 - alpha) * (1 - alpha_bar_next) / (1 - alpha_bar)));
      x.mul_(std::sqrt(1 + next * next));
    }
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// Multistep consistency sampling (Song et al., "Consistency Models", 2023, algorithm 1), as latent
// consistency models use it (Luo et al., 2023).
absl::StatusOr<at::Tensor> SampleLcm(SamplerRun& run, at::Tensor x) {
  for (int i = 0; i < run.steps(); ++i) {
    const float next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, run.sigma(i)));
    x = next > 0 ? run.sampling().NoiseScaling(next, run.Noise(x), denoised) : denoised;
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

}  // namespace distorch::sampling
