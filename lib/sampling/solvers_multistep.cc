// Solvers that reuse the slopes or predictions of earlier steps.
#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "lib/base/status_macros.h"
#include "lib/sampling/solvers.h"

namespace distorch::sampling {
namespace {

// The latest slopes, newest first, at most `capacity` of them.
class History {
 public:
  explicit History(size_t capacity) : capacity_(capacity) {}

  void Push(at::Tensor value) {
    values_.push_front(std::move(value));
    if (values_.size() > capacity_) values_.pop_back();
  }
  size_t size() const { return values_.size(); }

  // x + sum of weights[k] * (the k-th newest).
  at::Tensor AddedTo(const at::Tensor& x, std::span<const double> weights) const {
    at::Tensor sum = x;
    for (size_t k = 0; k < weights.size(); ++k) sum = sum.add(values_[k], weights[k]);
    return sum;
  }

 private:
  const size_t capacity_;
  std::deque<at::Tensor> values_;
};

// The weights of the newest slopes in the step from run.sigma(i) to run.sigma(i + 1); as many as
// there are to be used.
using Weights = std::vector<double>;
using WeightsOfStep = std::function<Weights(const SamplerRun& run, int i, size_t order)>;

// An explicit Adams method in sigma: x moves by a weighted sum of the last slopes.
absl::StatusOr<at::Tensor> SampleAdams(SamplerRun& run, at::Tensor x, size_t max_order,
                                       const WeightsOfStep& weights_of) {
  History slopes(max_order);
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i);
    ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(x, sigma));
    slopes.Push(Derivative(x, sigma, denoised));
    x = run.sigma(i + 1) == 0 ? denoised : slopes.AddedTo(x, weights_of(run, i, slopes.size()));
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  return x;
}

// The integral over [from, to] of each Lagrange basis polynomial of at most 4 nodes: Simpson's
// rule, exact for cubics.
Weights LagrangeIntegrals(std::span<const double> nodes, double from, double to) {
  Weights weights(nodes.size());
  for (size_t k = 0; k < nodes.size(); ++k) {
    weights[k] = (to - from) / 6 *
                 (LagrangeBasis(nodes, k, from) + 4 * LagrangeBasis(nodes, k, (from + to) / 2) +
                  LagrangeBasis(nodes, k, to));
  }
  return weights;
}

// values[i], values[i - 1], …: the `count` newest.
template <typename T>
std::vector<double> Newest(const std::vector<T>& values, int i, size_t count) {
  std::vector<double> newest;
  for (size_t k = 0; k < count; ++k) newest.push_back(values[i - k]);
  return newest;
}

// Adams–Bashforth for steps of one length, orders 1 to 4.
Weights EvenAdamsBashforth(const SamplerRun& run, int i, size_t order) {
  static const std::array<Weights, 4> kTable = {Weights{1},
                                                {3 / 2.0, -1 / 2.0},
                                                {23 / 12.0, -16 / 12.0, 5 / 12.0},
                                                {55 / 24.0, -59 / 24.0, 37 / 24.0, -9 / 24.0}};
  Weights weights = kTable[order - 1];
  for (double& weight : weights) weight *= run.sigma(i + 1) - run.sigma(i);
  return weights;
}

// iPNDM-v's weights for steps of uneven length, as its authors' code computes them
// (github.com/zju-pi/diff-sampler, solvers.py): third and fourth order are corrections of the
// second.
Weights UnevenAdamsBashforth(const SamplerRun& run, int i, size_t order) {
  const double h = run.sigma(i + 1) - run.sigma(i);
  if (order == 1) return {h};
  const double h1 = run.sigma(i) - run.sigma(i - 1);
  Weights weights = {1 + h / h1 / 2, -h / h1 / 2, 0, 0};
  if (order >= 3) {
    const double h2 = run.sigma(i - 1) - run.sigma(i - 2);
    const double third = (1 - h * h / (3 * h1 * (h1 + h2))) / 2;
    weights[0] += third;
    weights[1] -= (1 + h1 / h2) * third;
    weights[2] += h1 / h2 * third;
    if (order == 4) {
      const double h3 = run.sigma(i - 2) - run.sigma(i - 3);
      const double fourth =
          ((1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))) *
          (h * (h + h1) * (h + h1 + h2)) / (h1 * (h1 + h2) * (h1 + h2 + h3));
      const double ratio = h1 * (h1 + h2) / (h2 * (h2 + h3));
      weights[0] += fourth;
      weights[1] -= (1 + h1 / h2 + ratio) * fourth;
      weights[2] += (h1 / h2 + ratio * (1 + h2 / h3)) * fourth;
      weights[3] -= ratio * h1 / h2 * fourth;
    }
  }
  for (double& weight : weights) weight *= h;
  weights.resize(order);
  return weights;
}

// DEIS's time, of a VP process whose ends are sigma 0.002 at 0.001 and 80 at 1.
class DeisTime {
 public:
  DeisTime() {
    constexpr float kStart = 1e-3f, kLow = 0.002f, kHigh = 80.0f;
    const float log_high = std::log(kHigh * kHigh + 1);
    beta_d_ = 2 * (std::log(kLow * kLow + 1) / kStart - log_high) / (kStart - 1);
    beta_min_ = log_high - 0.5f * beta_d_;
  }

  float OfSigma(float sigma) const {
    return (std::sqrt(beta_min_ * beta_min_ + 2 * beta_d_ * std::log(sigma * sigma + 1)) -
            beta_min_) /
           beta_d_;
  }

  // d sigma / d t.
  double Rate(double t) const {
    const double alpha_bar = std::exp(-0.5 * t * t * beta_d_ - t * beta_min_);
    return 0.5 * (t * beta_d_ + beta_min_) / std::sqrt(alpha_bar * (1 - alpha_bar));
  }

 private:
  float beta_d_ = 0, beta_min_ = 0;
};

// Zhang & Chen, "Fast Sampling of Diffusion Models with Exponential Integrator" (2022), eq. 15: the
// Lagrange polynomials of past times under the rate's integral, as a sum over 10,000 points.
Weights DeisWeights(const DeisTime& time, std::span<const double> nodes, double from, double to) {
  constexpr int kPoints = 10000;
  Weights weights(nodes.size(), 0.0);
  for (int p = 0; p < kPoints; ++p) {
    const double t = from + (to - from) * p / (kPoints - 1);
    const double rate = time.Rate(t);
    for (size_t k = 0; k < nodes.size(); ++k) weights[k] += rate * LagrangeBasis(nodes, k, t);
  }
  for (double& weight : weights) weight *= (to - from) / kPoints;
  return weights;
}

// RES (Zhang et al., "Improved Order Analysis and Design of Exponential Integrator for Diffusion
// Models Sampling", 2023): its multistep solver of second order, with ancestral noise
// of share eta. With cfg_pp the state is carried by the unconditional prediction (Chung et al.,
// 2024).
absl::StatusOr<at::Tensor> ResMultistep(SamplerRun& run, at::Tensor x, float eta, bool cfg_pp) {
  const auto time_of = [](float sigma) { return -std::log(sigma); };
  const auto phi_1 = [](float t) { return std::expm1(t) / t; };
  at::Tensor old_carrier;
  float old_down = 0;
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i);
    ASSIGN_OR_RETURN(const Denoised denoised, run.DenoiseBoth(x, sigma, cfg_pp));
    const at::Tensor& carrier = cfg_pp ? denoised.uncond : denoised.guided;
    const AncestralStep step = SplitAncestral(sigma, run.sigma(i + 1), eta);
    if (step.down == 0 || !old_carrier.defined()) {
      const at::Tensor d = Derivative(x, sigma, carrier);
      x = cfg_pp ? denoised.guided.add(d, step.down) : Moved(x, d, step.down - sigma);
    } else {
      const float t = time_of(sigma), h = time_of(step.down) - t;
      const float c2 = (time_of(run.sigma(i - 1)) - time_of(old_down)) / h;
      const float phi_1_h = phi_1(-h), phi_2_h = (phi_1_h - 1) / -h;
      if (cfg_pp) x = x + (denoised.guided - denoised.uncond);
      x = (x * std::exp(-h))
              .add_(carrier, h * (phi_1_h - phi_2_h / c2))
              .add_(old_carrier, h * (phi_2_h / c2));
    }
    if (step.up > 0) x = x.add(run.Noise(x), step.up);
    old_carrier = carrier;
    old_down = step.down;
    RETURN_IF_ERROR(run.StepDone(i, x, denoised.guided));
  }
  return x;
}

// Permenter & Yuan, "Interpreting and Improving Diffusion Models from an Optimization Perspective"
// (2023), algorithm 2, with gamma = 2: the slope is extrapolated from the last two.
absl::StatusOr<at::Tensor> GradientEstimation(SamplerRun& run, at::Tensor x, bool cfg_pp) {
  constexpr float kGamma = 2;
  at::Tensor old_d;
  for (int i = 0; i < run.steps(); ++i) {
    const float sigma = run.sigma(i), next = run.sigma(i + 1);
    ASSIGN_OR_RETURN(const Denoised denoised, run.DenoiseBoth(x, sigma, cfg_pp));
    const at::Tensor d = Derivative(x, sigma, cfg_pp ? denoised.uncond : denoised.guided);
    if (next == 0) {
      x = denoised.guided;
    } else {
      x = cfg_pp ? denoised.guided.add(d, next) : Moved(x, d, next - sigma);
      if (old_d.defined()) x = Moved(x, d - old_d, (kGamma - 1) * (next - sigma));
    }
    old_d = d;
    RETURN_IF_ERROR(run.StepDone(i, x, denoised.guided));
  }
  return x;
}

}  // namespace

// Linear multistep: Adams–Bashforth of order 4 over uneven steps in sigma.
absl::StatusOr<at::Tensor> SampleLms(SamplerRun& run, at::Tensor x) {
  return SampleAdams(run, std::move(x), 4, [](const SamplerRun& run, int i, size_t order) {
    return LagrangeIntegrals(Newest(run.sigmas(), i, order), run.sigma(i), run.sigma(i + 1));
  });
}

// iPNDM (Zhang & Chen, 2022; Liu et al., "PNDM", 2022), order 4.
absl::StatusOr<at::Tensor> SampleIpndm(SamplerRun& run, at::Tensor x) {
  return SampleAdams(run, std::move(x), 4, EvenAdamsBashforth);
}

absl::StatusOr<at::Tensor> SampleIpndmV(SamplerRun& run, at::Tensor x) {
  return SampleAdams(run, std::move(x), 4, UnevenAdamsBashforth);
}

// DEIS-tAB (Zhang & Chen, 2022), order 3.
absl::StatusOr<at::Tensor> SampleDeis(SamplerRun& run, at::Tensor x) {
  const DeisTime time;
  std::vector<float> times;
  for (float sigma : run.sigmas()) times.push_back(time.OfSigma(sigma));
  return SampleAdams(run, std::move(x), 3, [&](const SamplerRun& run, int i, size_t order) {
    if (order == 1) return Weights{run.sigma(i + 1) - run.sigma(i)};
    return DeisWeights(time, Newest(times, i, order), times[i], times[i + 1]);
  });
}

absl::StatusOr<at::Tensor> SampleResMultistep(SamplerRun& run, at::Tensor x) {
  return ResMultistep(run, std::move(x), 0, false);
}
absl::StatusOr<at::Tensor> SampleResMultistepCfgPp(SamplerRun& run, at::Tensor x) {
  return ResMultistep(run, std::move(x), 0, true);
}
absl::StatusOr<at::Tensor> SampleResMultistepAncestral(SamplerRun& run, at::Tensor x) {
  return ResMultistep(run, std::move(x), 1, false);
}
absl::StatusOr<at::Tensor> SampleResMultistepAncestralCfgPp(SamplerRun& run, at::Tensor x) {
  return ResMultistep(run, std::move(x), 1, true);
}

absl::StatusOr<at::Tensor> SampleGradientEstimation(SamplerRun& run, at::Tensor x) {
  return GradientEstimation(run, std::move(x), false);
}
absl::StatusOr<at::Tensor> SampleGradientEstimationCfgPp(SamplerRun& run, at::Tensor x) {
  return GradientEstimation(run, std::move(x), true);
}

}  // namespace distorch::sampling
