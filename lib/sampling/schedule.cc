#include "lib/sampling/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"

namespace distorch::sampling {
namespace {

using Scheduler = std::vector<float> (*)(const ModelSampling&, int steps);

// A level this low already is the end: no zero is appended to it.
constexpr float kNearlyZero = 1e-5f;

std::vector<float> ToVector(const at::Tensor& values) {
  return {values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel()};
}

std::vector<float> WithZero(std::vector<float> sigmas) {
  sigmas.push_back(0);
  return sigmas;
}

// Even strides through the table of levels, from the highest down.
std::vector<float> Simple(const ModelSampling& sampling, int steps) {
  const std::vector<float>& table = sampling.sigmas();
  const double stride = static_cast<double>(table.size()) / steps;
  std::vector<float> sigmas(steps);
  for (int i = 0; i < steps; ++i)
    sigmas[i] = table[table.size() - 1 - static_cast<size_t>(i * stride)];
  return WithZero(std::move(sigmas));
}

// The timesteps of DDIM's published code (Song et al., 2020): whole strides from the second level
// up.
std::vector<float> DdimUniform(const ModelSampling& sampling, int steps) {
  const std::vector<float>& table = sampling.sigmas();
  std::vector<float> sigmas;
  if (table[1] > kNearlyZero) {
    sigmas.push_back(0);
  } else {
    ++steps;
  }
  const size_t stride = std::max<size_t>(table.size() / steps, 1);
  for (size_t i = 1; i < table.size(); i += stride) sigmas.push_back(table[i]);
  std::reverse(sigmas.begin(), sigmas.end());
  return sigmas;
}

// Evenly spaced timesteps, `count` of them between the model's two ends.
std::vector<float> EvenTimesteps(const ModelSampling& sampling, int count) {
  std::vector<float> sigmas =
      ToVector(at::linspace(sampling.TimestepOf(sampling.sigma_max()),
                            sampling.TimestepOf(sampling.sigma_min()), count, at::kFloat));
  for (float& value : sigmas) value = sampling.SigmaOf(value);
  return sigmas;
}

std::vector<float> Normal(const ModelSampling& sampling, int steps) {
  if (sampling.SigmaOf(sampling.TimestepOf(sampling.sigma_min())) <= kNearlyZero) {
    return EvenTimesteps(sampling, steps + 1);
  }
  return WithZero(EvenTimesteps(sampling, steps));
}

// As `normal`, but the model's lowest level is the (dropped) end of the last step, as in
// Stability's generative-models.
std::vector<float> SgmUniform(const ModelSampling& sampling, int steps) {
  std::vector<float> sigmas = EvenTimesteps(sampling, steps + 1);
  sigmas.back() = 0;
  return sigmas;
}

// Karras et al. (2022), eq. 5, with rho = 7.
std::vector<float> Karras(const ModelSampling& sampling, int steps) {
  constexpr double kRho = 7;
  const double low = std::pow(sampling.sigma_min(), 1 / kRho),
               high = std::pow(sampling.sigma_max(), 1 / kRho);
  return WithZero(
      ToVector(at::linspace(0, 1, steps, at::kFloat).mul_(low - high).add_(high).pow_(kRho)));
}

// Evenly spaced in log(sigma).
std::vector<float> Exponential(const ModelSampling& sampling, int steps) {
  const double low = std::log(static_cast<double>(sampling.sigma_min()));
  const double high = std::log(static_cast<double>(sampling.sigma_max()));
  return WithZero(ToVector(at::linspace(high, low, steps, at::kFloat).exp_()));
}

// Sabour et al., "Align Your Steps" (2024): the optimum of its KL bound for Gaussian data.
std::vector<float> KlOptimal(const ModelSampling& sampling, int steps) {
  if (steps == 1) return {sampling.sigma_max(), 0};  // the formula divides by steps - 1
  const double low = std::atan(static_cast<double>(sampling.sigma_min()));
  const double high = std::atan(static_cast<double>(sampling.sigma_max()));
  const at::Tensor ramp = at::arange(steps, at::kFloat).div_(steps - 1);
  return WithZero(ToVector((ramp * low).add_((1 - ramp) * high).tan_()));
}

// Signal rises along a straight line to a threshold over the first half of the steps, then along a
// parabola: the linear-quadratic schedule of Polyak et al., "Movie Gen" (2024).
std::vector<float> LinearQuadratic(const ModelSampling& sampling, int steps) {
  if (steps == 1) return {sampling.sigma_max(), 0};
  constexpr double kThreshold = 0.025;
  const int linear = steps / 2, quadratic = steps - linear;
  const double gap = linear - kThreshold * steps;
  const double square = gap / (linear * static_cast<double>(quadratic) * quadratic);
  const double slope = kThreshold / linear - 2 * gap / (static_cast<double>(quadratic) * quadratic);
  std::vector<float> sigmas(steps + 1);
  for (int i = 0; i <= steps; ++i) {
    const double x = i;
    const double clean = i < linear  ? x * kThreshold / linear
                         : i < steps ? square * x * x + slope * x + square * linear * linear
                                     : 1.0;
    sigmas[i] = static_cast<float>(1 - clean) * sampling.sigma_max();
  }
  return sigmas;
}

// The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method.
// Converges fast for x < (a + 1) / (a + b + 2).
double BetaContinuedFraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300, kEpsilon = 1e-16;
  const auto nonzero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1, d = 1 / nonzero(1 - (a + b) * x / (a + 1));
  double result = d;
  for (int m = 1; m < 200; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / nonzero(1 + even * d);
    c = nonzero(1 + even / c);
    result *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / nonzero(1 + odd * d);
    c = nonzero(1 + odd / c);
    result *= d * c;
    if (std::abs(d * c - 1) < kEpsilon) break;
  }
  return result;
}

// The regularised incomplete beta function I_x(a, b), DLMF 8.17.2.
double RegularizedIncompleteBeta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double log_beta = std::lgamma(a) + std::lgamma(b) - std::lgamma(a + b);
  const double front = std::exp(a * std::log(x) + b * std::log1p(-x) - log_beta);
  if (x < (a + 1) / (a + b + 2)) return front * BetaContinuedFraction(a, b, x) / a;
  return 1 - front * BetaContinuedFraction(b, a, 1 - x) / b;
}

// Lee et al., "Beta Sampling is All You Need" (2024): quantiles of Beta(0.6, 0.6) as timesteps.
std::vector<float> Beta(const ModelSampling& sampling, int steps) {
  constexpr double kShape = 0.6;
  const int last = static_cast<int>(sampling.sigmas().size()) - 1;
  std::vector<int> timesteps(last + 1);
  std::iota(timesteps.begin(), timesteps.end(), 0);
  std::vector<float> sigmas;
  int previous = -1;
  for (int i = 0; i < steps; ++i) {
    // The quantile rounds to t exactly if the distribution passes `share` between t - 1/2 and t +
    // 1/2: a search over the few timesteps needs no inverse of the distribution. The one tie, at
    // its middle, rounds to even.
    const double share = 1 - static_cast<double>(i) / steps;
    const auto found = std::partition_point(timesteps.begin(), timesteps.end() - 1, [&](int t) {
      const double tie = t % 2 == 0 ? -1e-12 : 1e-12;
      return RegularizedIncompleteBeta(kShape, kShape, (t + 0.5) / last) < share + tie;
    });
    if (*found != previous) sigmas.push_back(sampling.sigmas()[*found]);
    previous = *found;
  }
  return WithZero(std::move(sigmas));
}

struct Entry {
  std::string_view name;
  Scheduler schedule;
};

constexpr std::array kSchedulers = {
    Entry{"simple", Simple},
    Entry{"sgm_uniform", SgmUniform},
    Entry{"karras", Karras},
    Entry{"exponential", Exponential},
    Entry{"ddim_uniform", DdimUniform},
    Entry{"beta", Beta},
    Entry{"normal", Normal},
    Entry{"linear_quadratic", LinearQuadratic},
    Entry{"kl_optimal", KlOptimal},
};

constexpr auto kNames = [] {
  std::array<std::string_view, kSchedulers.size()> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = kSchedulers[i].name;
  return names;
}();

}  // namespace

std::span<const std::string_view> SchedulerNames() { return kNames; }

absl::Status CheckScheduler(std::string_view name) {
  if (std::find(kNames.begin(), kNames.end(), name) != kNames.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("scheduler: unknown '", name, "'; allowed: ", absl::StrJoin(kNames, ", ")));
}

absl::StatusOr<std::vector<float>> CalculateSigmas(const ModelSampling& sampling,
                                                   std::string_view scheduler, int steps) {
  RETURN_IF_ERROR(CheckScheduler(scheduler));
  const auto entry = std::find_if(kSchedulers.begin(), kSchedulers.end(),
                                  [&](const Entry& entry) { return entry.name == scheduler; });
  return entry->schedule(sampling, steps);
}

}  // namespace distorch::sampling
