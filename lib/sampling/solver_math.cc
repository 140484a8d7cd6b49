#include <algorithm>
#include <cmath>

#include "lib/sampling/solvers.h"

namespace distorch::sampling {

at::Tensor Derivative(const at::Tensor& x, float sigma, const at::Tensor& denoised) {
  return (x - denoised).div_(sigma);
}

at::Tensor Moved(const at::Tensor& x, const at::Tensor& slope, float distance) {
  return (slope * distance).add_(x);
}

AncestralStep SplitAncestral(float from, float to, float eta) {
  if (eta == 0) return {.down = to};
  const float up = std::min(to, eta * std::sqrt(to * to * (from * from - to * to) / (from * from)));
  return {.down = std::sqrt(to * to - up * up), .up = up};
}

AncestralStep SplitAncestral(const ModelSampling& sampling, float from, float to) {
  if (!sampling.is_flow()) return SplitAncestral(from, to);
  const float down = to * (1 + (to / from - 1));
  const float alpha = 1 - to, alpha_down = 1 - down;
  return {.down = down,
          .up = std::sqrt(to * to - down * down * (alpha * alpha) / (alpha_down * alpha_down)),
          .scale = alpha / alpha_down};
}

float HalfLogSnr(const ModelSampling& sampling, float sigma) {
  return -std::log(sampling.is_flow() ? sigma / (1 - sigma) : sigma);
}

float SigmaOfHalfLogSnr(const ModelSampling& sampling, float half_log_snr) {
  if (sampling.is_flow()) return 1 / (1 + std::exp(half_log_snr));
  return std::exp(-half_log_snr);
}

std::vector<float> SigmasOfFiniteSnr(const SamplerRun& run) {
  std::vector<float> sigmas = run.sigmas();
  if (run.sampling().is_flow() && sigmas[0] >= 1) {
    sigmas[0] = static_cast<float>(run.sampling().SigmaOfPercent(1e-4));
  }
  return sigmas;
}

double LagrangeBasis(std::span<const double> nodes, size_t index, double at) {
  double product = 1;
  for (size_t k = 0; k < nodes.size(); ++k) {
    if (k != index) product *= (at - nodes[k]) / (nodes[index] - nodes[k]);
  }
  return product;
}

std::vector<float> SolveLinear(std::vector<float> matrix, std::vector<float> rhs) {
  const int64_t n = static_cast<int64_t>(rhs.size());
  const at::Tensor solution = at::linalg_solve(at::from_blob(matrix.data(), {n, n}, at::kFloat),
                                               at::from_blob(rhs.data(), {n}, at::kFloat));
  return {solution.const_data_ptr<float>(), solution.const_data_ptr<float>() + n};
}

}  // namespace distorch::sampling
