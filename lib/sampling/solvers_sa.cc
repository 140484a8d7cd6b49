// SA-Solver: Xue et al., "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models"
// (2023).
#include <algorithm>
#include <cmath>
#include <deque>
#include <span>
#include <vector>

#include "lib/base/status_macros.h"
#include "lib/sampling/solvers.h"

namespace distorch::sampling {
namespace {

constexpr int kPredictorOrder = 3, kCorrectorOrder = 4;

// The weights of eqs. 15 and 18: from lambda_s to lambda_t, of predictions at `nodes` (newest
// last), in units of alpha. The integrals of exp((1 + tau^2) x) x^p by parts, then the nodes'
// Vandermonde system, in float32 as published.
std::vector<float> AdamsWeights(std::span<const float> nodes, float lambda_s, float lambda_t,
                                float tau) {
  const size_t order = nodes.size();
  const float tau_factor = 1 + tau * tau, decay = std::exp(-tau_factor * (lambda_t - lambda_s));
  std::vector<float> integrals(order), vandermonde;
  for (size_t p = 0; p < order; ++p) {
    const float power = static_cast<float>(p);
    const float term = std::pow(lambda_t, power) - std::pow(lambda_s, power) * decay;
    integrals[p] = p == 0 ? term : term - power / tau_factor * integrals[p - 1];
    for (float node : nodes) vandermonde.push_back(std::pow(node, power));
  }
  return SolveLinear(std::move(vandermonde), std::move(integrals));
}

// sum of weights[k] * predictions[last order of them]; `scale` is alpha at the target.
at::Tensor Weighted(const std::deque<at::Tensor>& predictions, const std::vector<float>& weights,
                    float scale) {
  const size_t first = predictions.size() - weights.size();
  at::Tensor sum = predictions[first] * (scale * weights[0]);
  for (size_t k = 1; k < weights.size(); ++k) sum.add_(predictions[first + k], scale * weights[k]);
  return sum;
}

// Algorithm 1. Noise (tau = 1) is added between 20 % and 80 % of the sampling range. pece: the
// corrected state is evaluated once more, for the next step.
absl::StatusOr<at::Tensor> SampleSa(SamplerRun& run, at::Tensor x, bool pece) {
  const ModelSampling& sampling = run.sampling();
  const std::vector<float> sigmas = SigmasOfFiniteSnr(run);
  const int steps = run.steps();
  std::vector<float> lambdas;
  for (float sigma : sigmas) lambdas.push_back(HalfLogSnr(sampling, sigma));
  const double noisy_from = sampling.SigmaOfPercent(0.2), noisy_to = sampling.SigmaOfPercent(0.8);
  // Orders fall towards a final 0, for stability.
  const auto order_at = [&](int order, int left, size_t known) {
    order = std::min(order, static_cast<int>(known));
    return sigmas.back() == 0 ? std::min(order, left) : order;
  };
  const auto nodes = [&](int i, int order) {
    return std::span(lambdas).subspan(i - order + 1, order);
  };

  std::deque<at::Tensor> predictions;
  at::Tensor predicted = x, noise;
  float tau = 0, h = 0;
  for (int i = 0; i < steps; ++i) {
    const float sigma = sigmas[i], next = sigmas[i + 1];
    ASSIGN_OR_RETURN(at::Tensor denoised, run.Denoise(predicted, sigma));
    predictions.push_back(denoised);
    if (predictions.size() > kCorrectorOrder) predictions.pop_front();

    if (i == 0 || (next == 0 && !pece)) {
      x = predicted;
    } else {
      const int order = order_at(kCorrectorOrder, steps - i, predictions.size());
      const at::Tensor change =
          Weighted(predictions, AdamsWeights(nodes(i, order), lambdas[i - 1], lambdas[i], tau),
                   sigma * std::exp(lambdas[i]));
      x = (x * (sigma / sigmas[i - 1] * std::exp(-tau * tau * h))).add_(change);
      if (tau > 0) x.add_(noise);  // the predictor's
      if (pece) {
        ASSIGN_OR_RETURN(denoised, run.Denoise(x, sigma));
        predictions.back() = denoised;
      }
    }

    if (next == 0) {
      x = denoised;
    } else {
      tau = noisy_from >= next && next >= noisy_to ? 1 : 0;
      h = lambdas[i + 1] - lambdas[i];
      const int order = order_at(kPredictorOrder, steps - 1 - i, predictions.size());
      const at::Tensor change =
          Weighted(predictions, AdamsWeights(nodes(i, order), lambdas[i], lambdas[i + 1], tau),
                   next * std::exp(lambdas[i + 1]));
      predicted = (x * (next / sigma * std::exp(-tau * tau * h))).add_(change);
      if (tau > 0) {
        noise = run.Noise(x).mul_(next * std::sqrt(-std::expm1(-2 * tau * tau * h)));
        predicted.add_(noise);
      }
    }
    RETURN_IF_ERROR(run.StepDone(i, x, denoised));
  }
  // The published code returns the last corrected state, also where the schedule ends above 0.
  return x;
}

}  // namespace

absl::StatusOr<at::Tensor> SampleSaSolver(SamplerRun& run, at::Tensor x) {
  return SampleSa(run, std::move(x), false);
}

absl::StatusOr<at::Tensor> SampleSaSolverPece(SamplerRun& run, at::Tensor x) {
  return SampleSa(run, std::move(x), true);
}

}  // namespace distorch::sampling
