// Exponential integrators of the diffusion SDE. Time is the half-log-SNR of the model's own
// process, lambda = log(alpha / sigma); the share of noise is that of the reverse SDE itself (eta =
// 1).
#include <algorithm>
#include <cmath>
#include <vector>

#include "lib/base/status_macros.h"
#include "lib/sampling/brownian_tree.h"
#include "lib/sampling/solvers.h"

namespace distorch::sampling {
namespace {

// The Brownian motion over the run's levels above 0.
BrownianTree PathOf(const SamplerRun& run, const at::Tensor& x) {
  float low = run.sigma(0), high = run.sigma(0);
  for (float sigma : run.sigmas()) {
    high = std::max(high, sigma);
    if (sigma > 0) low = std::min(low, sigma);
  }
  return BrownianTree(x, low, high, run.seed());
}

// h * phi_2(h) of exponential integrators.
float HPhi2(float h) { return (std::expm1(h) - h) / h; }

// A point of the process: level, time, and signal.
struct Point {
  Point(const ModelSampling& sampling, float sigma) : Point(sigma, HalfLogSnr(sampling, sigma)) {}
  Point(float sigma, float lambda)
      : sigma(sigma), lambda(lambda), alpha(sigma * std::exp(lambda)) {}

  float sigma, lambda, alpha;
};

// The point at this share of the way from a to b in lambda.
Point Between(const ModelSampling& sampling, const Point& a, const Point& b, float share) {
  const float lambda = share < 0.5f ? a.lambda + share * (b.lambda - a.lambda)
                                    : b.lambda - (b.lambda - a.lambda) * (1 - share);
  return Point(SigmaOfHalfLogSnr(sampling, lambda), lambda);
}

enum class Order2 { kMidpoint, kHeun };

// SDE-DPM-Solver++(2M) (Lu et al., 2022b).
absl::StatusOr<at::Tensor> DpmPp2mSde(SamplerRun& run, at::Tensor x, Order2 order_2) {
  const BrownianTree path = PathOf(run, x);
  const std::vector<float> sigmas = SigmasOfFiniteSnr(run);
  at::Tensor old_denoised;
  float h_last = 0;
  for (int i = 0; i < run.steps(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigmas[i]));
    if (sigmas[i + 1] == 0) {
      x = denoised;
    } else {
      const Point from(run.sampling(), sigmas[i]), to(run.sampling(), sigmas[i + 1]);
      const float h = to.lambda - from.lambda, decay = -std::expm1(-2 * h);
      x = (x * (to.sigma / from.sigma * std::exp(-h))).add_(denoised, to.alpha * decay);
      if (old_denoised.defined()) {
        const float weight = order_2 == Order2::kHeun ? decay / (-2 * h) + 1 : 0.5f * decay;
        x.add_(denoised - old_denoised, to.alpha * weight / (h_last / h));
      }
      x.add_(path.Noise(from.sigma, to.sigma), to.sigma * std::sqrt(decay));
      h_last = h;
    }
    old_denoised = denoised;
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// How ER-SDE's noise grows with sigma / alpha; the published choice.
double ErNoiseScale(double lambda) { return lambda * (std::exp(std::pow(lambda, 0.3)) + 10); }

// Noise of SEEDS' stages: what one stage drew is carried on to the next, as the path of one
// Brownian motion.
class StageNoise {
 public:
  explicit StageNoise(SamplerRun& run) : run_(run) {}

  // Moves on by h in lambda and adds the path so far to x.
  void Add(float h, float sigma, at::Tensor& x) {
    const at::Tensor fresh = run_.Noise(x).mul_(std::sqrt(-std::expm1(-2 * h)));
    noise_ = noise_.defined() ? (noise_ * std::exp(-h)).add_(fresh) : fresh;
    x.add_(noise_, sigma);
  }

 private:
  SamplerRun& run_;
  at::Tensor noise_;
};

}  // namespace

// SDE-DPM-Solver++ as a singlestep method of order 2 (Lu et al., 2022b) with r = 1/2: ancestral
// steps to the midpoint and to the end.
absl::StatusOr<at::Tensor> SampleDpmPpSde(SamplerRun& run, at::Tensor x) {
  const BrownianTree path = PathOf(run, x);
  const std::vector<float> sigmas = SigmasOfFiniteSnr(run);
  // From `from` towards `to` with this prediction, in units of alpha.
  const auto advance = [&](const at::Tensor& state, const Point& from, const Point& to,
                           const at::Tensor& prediction) {
    const AncestralStep step = SplitAncestral(std::exp(-from.lambda), std::exp(-to.lambda));
    const float h = -std::log(step.down) - from.lambda;
    return (state * (to.alpha / from.alpha * std::exp(-h)))
        .sub_(prediction, to.alpha * std::expm1(-h))
        .add_(path.Noise(from.sigma, to.sigma), to.alpha * step.up);
  };
  for (int i = 0; i < run.steps(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigmas[i]));
    if (sigmas[i + 1] == 0) {
      x = denoised;
    } else {
      const Point from(run.sampling(), sigmas[i]), to(run.sampling(), sigmas[i + 1]);
      const Point middle = Between(run.sampling(), from, to, 0.5f);
      ASSIGN_OR_RETURN(const at::Tensor denoised_2,
                       run.Denoise(advance(x, from, middle, denoised), middle.sigma));
      x = advance(x, from, to, denoised_2);
    }
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

absl::StatusOr<at::Tensor> SampleDpmPp2mSde(SamplerRun& run, at::Tensor x) {
  return DpmPp2mSde(run, std::move(x), Order2::kMidpoint);
}

absl::StatusOr<at::Tensor> SampleDpmPp2mSdeHeun(SamplerRun& run, at::Tensor x) {
  return DpmPp2mSde(run, std::move(x), Order2::kHeun);
}

// The same with three predictions, DPM-Solver++(3M) SDE of k-diffusion (K. Crowson).
absl::StatusOr<at::Tensor> SampleDpmPp3mSde(SamplerRun& run, at::Tensor x) {
  const BrownianTree path = PathOf(run, x);
  const std::vector<float> sigmas = SigmasOfFiniteSnr(run);
  at::Tensor denoised_1, denoised_2;
  float h_1 = 0, h_2 = 0;
  for (int i = 0; i < run.steps(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigmas[i]));
    if (sigmas[i + 1] == 0) {
      x = denoised;
    } else {
      const Point from(run.sampling(), sigmas[i]), to(run.sampling(), sigmas[i + 1]);
      const float h = to.lambda - from.lambda, h_eta = 2 * h, decay = -std::expm1(-h_eta);
      const float phi_2 = 1 - decay / h_eta, phi_3 = phi_2 / h_eta - 0.5f;
      x = (x * (to.sigma / from.sigma * std::exp(-h))).add_(denoised, to.alpha * decay);
      if (denoised_2.defined()) {
        const float r0 = h_1 / h, r1 = h_2 / h;
        const at::Tensor d1_0 = (denoised - denoised_1).div_(r0),
                         d1_1 = (denoised_1 - denoised_2).div_(r1);
        const at::Tensor bend = d1_0 - d1_1;
        x.add_(d1_0.add(bend, r0 / (r0 + r1)), to.alpha * phi_2)
            .sub_(bend, to.alpha * phi_3 / (r0 + r1));
      } else if (denoised_1.defined()) {
        x.add_(denoised - denoised_1, to.alpha * phi_2 / (h_1 / h));
      }
      x.add_(path.Noise(from.sigma, to.sigma), to.sigma * std::sqrt(decay));
      h_2 = h_1;
      h_1 = h;
    }
    denoised_2 = denoised_1;
    denoised_1 = denoised;
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// Cui et al., "Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion Models"
// (2023), algorithm 3 (ER-SDE-Solver-3), with its published noise scale and 200 points for the
// integrals.
absl::StatusOr<at::Tensor> SampleErSde(SamplerRun& run, at::Tensor x) {
  constexpr int kPoints = 200;
  const std::vector<float> sigmas = SigmasOfFiniteSnr(run);
  std::vector<float> lambdas;  // sigma / alpha
  for (float sigma : sigmas) lambdas.push_back(std::exp(-HalfLogSnr(run.sampling(), sigma)));
  at::Tensor old_denoised, old_slope;
  for (int i = 0; i < run.steps(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigmas[i]));
    if (sigmas[i + 1] == 0) {
      x = denoised;
    } else {
      const double from = lambdas[i], to = lambdas[i + 1];
      const double alpha_from = sigmas[i] / from, alpha = sigmas[i + 1] / to;
      const double scale = ErNoiseScale(to), r = scale / ErNoiseScale(from);
      x = (x * (alpha / alpha_from * r)).add_(denoised, alpha * (1 - r));
      if (i >= 1) {
        const double dt = to - from, point = -dt / kPoints;
        double s = 0, s_u = 0;
        for (int p = 0; p < kPoints; ++p) {
          const double lambda = to + p * point;
          s += point / ErNoiseScale(lambda);
          s_u += point * (lambda - from) / ErNoiseScale(lambda);
        }
        const at::Tensor slope = (denoised - old_denoised).div_(from - lambdas[i - 1]);
        x.add_(slope, alpha * (dt + s * scale));
        if (i >= 2) {
          const at::Tensor bend = (slope - old_slope).div_((from - lambdas[i - 2]) / 2);
          x.add_(bend, alpha * (dt * dt / 2 + s_u * scale));
        }
        old_slope = slope;
      }
      x.add_(run.Noise(x), alpha * std::sqrt(std::max(0.0, to * to - from * from * r * r)));
    }
    old_denoised = denoised;
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// Gonzalez et al., "SEEDS: Exponential SDE Solvers for Fast High-Quality Sampling from Diffusion
// Models" (2023), SEEDS-2 for data prediction with c2 = 1/2.
absl::StatusOr<at::Tensor> SampleSeeds2(SamplerRun& run, at::Tensor x) {
  const std::vector<float> sigmas = SigmasOfFiniteSnr(run);
  for (int i = 0; i < run.steps(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigmas[i]));
    if (sigmas[i + 1] == 0) {
      x = denoised;
    } else {
      const Point from(run.sampling(), sigmas[i]), to(run.sampling(), sigmas[i + 1]);
      const Point middle = Between(run.sampling(), from, to, 0.5f);
      const float h = to.lambda - from.lambda;
      StageNoise noise(run);
      at::Tensor x_2 = (x * (middle.sigma / from.sigma * std::exp(-h / 2)))
                           .sub_(denoised, middle.alpha * std::expm1(-h));
      noise.Add(h / 2, middle.sigma, x_2);
      ASSIGN_OR_RETURN(const at::Tensor denoised_2, run.Denoise(x_2, middle.sigma));
      x = (x * (to.sigma / from.sigma * std::exp(-h)))
              .sub_(denoised_2, to.alpha * std::expm1(-2 * h));
      noise.Add(h / 2, to.sigma, x);
    }
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// SEEDS-3 of the same paper, for data prediction with c2 = 1/3 and c3 = 2/3.
absl::StatusOr<at::Tensor> SampleSeeds3(SamplerRun& run, at::Tensor x) {
  constexpr float kC2 = 1.0f / 3, kC3 = 2.0f / 3;
  const std::vector<float> sigmas = SigmasOfFiniteSnr(run);
  for (int i = 0; i < run.steps(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigmas[i]));
    if (sigmas[i + 1] == 0) {
      x = denoised;
    } else {
      const Point from(run.sampling(), sigmas[i]), to(run.sampling(), sigmas[i + 1]);
      const Point second = Between(run.sampling(), from, to, kC2),
                  third = Between(run.sampling(), from, to, kC3);
      const float h = to.lambda - from.lambda, h_eta = 2 * h;
      const auto carried = [&](const Point& point, float share) {
        return x * (point.sigma / from.sigma * std::exp(-share * h));
      };
      StageNoise noise(run);
      at::Tensor x_2 = carried(second, kC2).sub_(denoised, second.alpha * std::expm1(-kC2 * h_eta));
      noise.Add(kC2 * h, second.sigma, x_2);
      ASSIGN_OR_RETURN(const at::Tensor denoised_2, run.Denoise(x_2, second.sigma));

      const float a_2 = kC3 / kC2 * HPhi2(-kC3 * h_eta), a_1 = std::expm1(-kC3 * h_eta) - a_2;
      at::Tensor x_3 =
          carried(third, kC3).sub_(denoised, third.alpha * a_1).sub_(denoised_2, third.alpha * a_2);
      noise.Add((kC3 - kC2) * h, third.sigma, x_3);
      ASSIGN_OR_RETURN(const at::Tensor denoised_3, run.Denoise(x_3, third.sigma));

      const float b_3 = HPhi2(-h_eta) / kC3, b_1 = std::expm1(-h_eta) - b_3;
      x = carried(to, 1).sub_(denoised, to.alpha * b_1).sub_(denoised_3, to.alpha * b_3);
      noise.Add((1 - kC3) * h, to.sigma, x);
    }
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

}  // namespace distorch::sampling
