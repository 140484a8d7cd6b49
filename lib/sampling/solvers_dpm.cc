// DPM-Solver (Lu et al., 2022) and DPM-Solver++ (Lu et al., 2022b), without noise or with ancestral
// noise. Time is the half-log-SNR of a variance-exploding process, t = -log(sigma).
#include <algorithm>
#include <cmath>
#include <vector>

#include "lib/base/status_macros.h"
#include "lib/sampling/solvers.h"

namespace distorch::sampling {
namespace {

float TimeOf(float sigma) { return -std::log(sigma); }
float SigmaOf(float t) { return std::exp(-t); }

// DPM-Solver-1, -2 and -3 (algorithms 1 and 2 of Lu et al., 2022) from one point. Evaluations are
// made on demand and shared between the orders, which must be asked for with the same r1.
class DpmSolverStep {
 public:
  // `eps`: the noise predicted at (x, t).
  DpmSolverStep(SamplerRun& run, at::Tensor x, at::Tensor eps, float t, float t_next, float r1)
      : run_(run),
        x_(std::move(x)),
        eps_(std::move(eps)),
        t_(t),
        h_(t_next - t),
        r1_(r1),
        sigma_next_(SigmaOf(t_next)) {}

  static absl::StatusOr<at::Tensor> Eps(SamplerRun& run, const at::Tensor& x, float t) {
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, SigmaOf(t)));
    return Derivative(x, SigmaOf(t), denoised);
  }

  at::Tensor First() const { return x_.sub(eps_, sigma_next_ * std::expm1(h_)); }

  absl::StatusOr<at::Tensor> Second() {
    RETURN_IF_ERROR(EvaluateR1());
    return First().sub_(eps_r1_ - eps_, sigma_next_ / (2 * r1_) * std::expm1(h_));
  }

  absl::StatusOr<at::Tensor> Third() {
    RETURN_IF_ERROR(EvaluateR1());
    const float r2 = 2.0f / 3, s2 = t_ + r2 * h_, e2 = std::expm1(r2 * h_);
    const at::Tensor u2 =
        x_.sub(eps_, SigmaOf(s2) * e2)
            .sub_(eps_r1_ - eps_, SigmaOf(s2) * (r2 / r1_) * (e2 / (r2 * h_) - 1));
    ASSIGN_OR_RETURN(const at::Tensor eps_r2, Eps(run_, u2, s2));
    return First().sub_(eps_r2 - eps_, sigma_next_ / r2 * (std::expm1(h_) / h_ - 1));
  }

 private:
  absl::Status EvaluateR1() {
    if (eps_r1_.defined()) return absl::OkStatus();
    const float s1 = t_ + r1_ * h_;
    const at::Tensor u1 = x_.sub(eps_, SigmaOf(s1) * std::expm1(r1_ * h_));
    ASSIGN_OR_RETURN(eps_r1_, Eps(run_, u1, s1));
    return absl::OkStatus();
  }

  SamplerRun& run_;
  const at::Tensor x_, eps_;
  at::Tensor eps_r1_;
  const float t_, h_, r1_, sigma_next_;
};

// The lowest level above 0: where time is still finite.
float LastSigma(const SamplerRun& run) {
  return run.sigmas().back() == 0 ? run.sigma(run.steps() - 1) : run.sigmas().back();
}

// A schedule of one step to 0 leaves these solvers no time to integrate over.
absl::StatusOr<at::Tensor> DenoiseOnce(SamplerRun& run, const at::Tensor& x) {
  ASSIGN_OR_RETURN(at::Tensor denoised, run.Denoise(x, run.sigma(0)));
  RETURN_IF_ERROR(run.StepDone(0, denoised, denoised));
  return denoised;
}

// Step sizes from error estimates: the integral controller of Lu et al. (2022).
class StepSizeController {
 public:
  float h() const { return static_cast<float>(h_); }

  // Whether a step with this error may stand; sets the next size.
  bool Propose(double error) {
    constexpr double kOrder = 3, kAcceptSafety = 0.81;
    const double factor = 1 + std::atan(std::pow(1 / (error + 1e-8), 1 / kOrder) - 1);
    h_ *= factor;
    return factor >= kAcceptSafety;
  }

 private:
  double h_ = 0.05;
};

// The weights of DPM-Solver++(2M): how far the newest prediction is extrapolated from the one
// before.
float ExtrapolationOf(float h, float h_last) { return 1 / (2 * (h_last / h)); }

}  // namespace

// DPM-Solver-fast (Lu et al., 2022): as many third-order steps as the evaluations
// allow, evenly spaced in time, and lower orders for the rest.
absl::StatusOr<at::Tensor> SampleDpmFast(SamplerRun& run, at::Tensor x) {
  const int evaluations = run.steps();
  if (LastSigma(run) == run.sigma(0)) return DenoiseOnce(run, x);
  const int count = evaluations / 3 + 1;
  std::vector<int> orders(evaluations % 3 == 0 ? count - 2 : count - 1, 3);
  if (evaluations % 3 == 0)
    orders.insert(orders.end(), {2, 1});
  else
    orders.push_back(evaluations % 3);
  const at::Tensor times =
      at::linspace(TimeOf(run.sigma(0)), TimeOf(LastSigma(run)), count + 1, at::kFloat);
  const float* t = times.const_data_ptr<float>();
  int evaluated = 0;
  for (size_t i = 0; i < orders.size(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor eps, DpmSolverStep::Eps(run, x, t[i]));
    const at::Tensor denoised = x.sub(eps, SigmaOf(t[i]));
    DpmSolverStep step(run, x, eps, t[i], t[i + 1], orders[i] == 2 ? 1.0f / 2 : 1.0f / 3);
    if (orders[i] == 1) {
      x = step.First();
    } else {
      ASSIGN_OR_RETURN(x, orders[i] == 2 ? step.Second() : step.Third());
    }
    evaluated += orders[i];
    RETURN_IF_ERROR(run.StepDone(evaluated - 1, x, denoised));
  }
  return x;
}

// DPM-Solver-23 (Lu et al., 2022, appendix C): steps as long as orders 2 and 3 agree,
// however many that takes.
absl::StatusOr<at::Tensor> SampleDpmAdaptive(SamplerRun& run, at::Tensor x) {
  constexpr double kRelative = 0.05, kAbsolute = 0.0078;
  if (LastSigma(run) == run.sigma(0)) return DenoiseOnce(run, x);
  const float end = TimeOf(LastSigma(run));
  StepSizeController controller;
  at::Tensor x_previous = x;
  int attempts = 0;
  for (float t = TimeOf(run.sigma(0)); t < end - 1e-5f;) {
    const float t_next = std::min(end, t + controller.h());
    ASSIGN_OR_RETURN(const at::Tensor eps, DpmSolverStep::Eps(run, x, t));
    const at::Tensor denoised = x.sub(eps, SigmaOf(t));
    DpmSolverStep step(run, x, eps, t, t_next, 1.0f / 3);
    ASSIGN_OR_RETURN(at::Tensor low, step.Second());
    ASSIGN_OR_RETURN(at::Tensor high, step.Third());
    const at::Tensor tolerance =
        at::maximum(low.abs(), x_previous.abs()).mul_(kRelative).clamp_min_(kAbsolute);
    const double error = ((low - high) / tolerance).norm().item<double>() / std::sqrt(x.numel());
    if (!std::isfinite(error)) {
      return absl::InternalError("dpm_adaptive: the model's predictions are not finite");
    }
    if (controller.Propose(error)) {
      x_previous = std::move(low);
      x = std::move(high);
      t = t_next;
    }
    RETURN_IF_ERROR(run.StepDone(std::min(attempts++, run.steps() - 1), x, denoised));
  }
  return x;
}

// DPM-Solver++(2S) (Lu et al., 2022b, algorithm 1) down, ancestral noise up. In a rectified flow
// the midpoint is halfway in that process's own half-log-SNR.
absl::StatusOr<at::Tensor> SampleDpmPp2sAncestral(SamplerRun& run, at::Tensor x) {
  const ModelSampling& sampling = run.sampling();
  const auto midpoint = [&](float from, float to) {
    if (sampling.is_flow() && from == 1) return 0.9999f;
    const float s = HalfLogSnr(sampling, from), t = HalfLogSnr(sampling, to);
    return SigmaOfHalfLogSnr(sampling, s + 0.5f * (t - s));
  };
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    const AncestralStep step = SplitAncestral(sampling, sigma, next);
    if (step.down == 0) {
      x = Moved(x, Derivative(x, sigma, denoised), -sigma);
    } else {
      const float middle = midpoint(sigma, step.down);
      const at::Tensor x_2 = at::lerp(denoised, x, middle / sigma);
      ASSIGN_OR_RETURN(const at::Tensor denoised_2, run.Denoise(x_2, middle));
      x = at::lerp(denoised_2, x, step.down / sigma);
    }
    if (next > 0) x = run.Noise(x).mul_(step.up).add_(x, step.scale);
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// The same with CFG++ (Chung et al., 2024): what guidance adds to the prediction also moves the
// state.
absl::StatusOr<at::Tensor> SampleDpmPp2sAncestralCfgPp(SamplerRun& run, at::Tensor x) {
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const Denoised denoised, run.DenoiseBoth(x, sigma));
    const AncestralStep step = SplitAncestral(sigma, next);
    if (step.down == 0) {
      x = denoised.guided;
    } else {
      const float middle = SigmaOf(TimeOf(sigma) + 0.5f * (TimeOf(step.down) - TimeOf(sigma)));
      const at::Tensor x_2 =
          at::lerp(denoised.guided, x + (denoised.guided - denoised.uncond), middle / sigma);
      ASSIGN_OR_RETURN(const Denoised denoised_2, run.DenoiseBoth(x_2, middle));
      x = at::lerp(denoised_2.guided, x + (denoised.guided - denoised_2.uncond), step.down / sigma);
    }
    if (next > 0) x = x.add(run.Noise(x), step.up);
    RETURN_IF_ERROR(run.StepDone(i, x, denoised.guided));
  }
  return x;
}

// DPM-Solver++(2M) (Lu et al., 2022b, algorithm 2).
absl::StatusOr<at::Tensor> SampleDpmPp2m(SamplerRun& run, at::Tensor x) {
  at::Tensor old_denoised;
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    const float t = TimeOf(sigma), h = TimeOf(next) - t;
    at::Tensor prediction = denoised;
    if (old_denoised.defined() && next > 0) {
      const float extra = ExtrapolationOf(h, t - TimeOf(run.sigma(i - 1)));
      prediction = (denoised * (1 + extra)).sub_(old_denoised, extra);
    }
    x = (x * (next / sigma)).sub_(prediction, std::expm1(-h));
    old_denoised = denoised;
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// The same with CFG++ (Chung et al., 2024).
absl::StatusOr<at::Tensor> SampleDpmPp2mCfgPp(SamplerRun& run, at::Tensor x) {
  at::Tensor old_uncond;
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const Denoised denoised, run.DenoiseBoth(x, sigma));
    const float t = TimeOf(sigma), h = TimeOf(next) - t;
    x = denoised.guided.add(x - denoised.uncond, std::exp(-h));
    if (old_uncond.defined() && next > 0) {
      const float extra = ExtrapolationOf(h, t - TimeOf(run.sigma(i - 1)));
      x.sub_(denoised.guided - old_uncond, std::expm1(-h) * extra);
    }
    old_uncond = denoised.uncond;
    RETURN_IF_ERROR(run.StepDone(i, x, denoised.guided));
  }
  return x;
}

}  // namespace distorch::sampling
