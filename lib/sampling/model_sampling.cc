#include "lib/sampling/model_sampling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace distorch::sampling {
namespace {

// alpha_bar of DDPM's last timestep after the rescaling: exactly 0 would make its sigma infinite.
constexpr double kTerminalAlphaBar = 4.8973451890853435e-08;

// Lin et al. (2023), algorithm 1: shift and scale sqrt(alpha_bar) so that the last one is (nearly)
// zero.
void RescaleToZeroTerminalSnr(std::vector<double>& alpha_bars) {
  const double first = std::sqrt(alpha_bars.front());
  const double last = std::sqrt(alpha_bars.back());
  for (double& alpha_bar : alpha_bars) {
    const double root = (std::sqrt(alpha_bar) - last) * (first / (first - last));
    alpha_bar = root * root;
  }
  alpha_bars.back() = kTerminalAlphaBar;
}

// DDPM's cumulative products over betas whose square roots are evenly spaced (Rombach et al.,
// 2022).
std::vector<double> DiscreteSigmas(const ModelSamplingConfig& config) {
  const double start = std::sqrt(config.linear_start), end = std::sqrt(config.linear_end);
  std::vector<double> alpha_bars(config.timesteps);
  double product = 1;
  for (int i = 0; i < config.timesteps; ++i) {
    const double root = start + (end - start) * i / (config.timesteps - 1);
    product *= 1 - root * root;
    alpha_bars[i] = product;
  }
  if (config.zero_terminal_snr) RescaleToZeroTerminalSnr(alpha_bars);
  std::vector<double> sigmas(alpha_bars.size());
  std::transform(alpha_bars.begin(), alpha_bars.end(), sigmas.begin(),
                 [](double alpha_bar) { return std::sqrt((1 - alpha_bar) / alpha_bar); });
  return sigmas;
}

template <typename T>
T ShiftTime(T shift, T t) {
  return shift == 1 ? t : shift * t / (1 + (shift - 1) * t);
}

template <typename T>
T FluxShiftTime(double mu, T t) {
  const T shift = static_cast<T>(std::exp(mu));
  return shift / (shift + (1 / t - 1));
}

}  // namespace

ModelSampling::ModelSampling(const ModelSamplingConfig& config) : config_(config) {
  switch (config.levels) {
    case NoiseLevels::kDiscrete:
      for (double sigma : DiscreteSigmas(config)) {
        sigmas_.push_back(static_cast<float>(sigma));
        log_sigmas_.push_back(static_cast<float>(std::log(sigma)));
      }
      break;
    case NoiseLevels::kDiscreteFlow:
      for (int i = 1; i <= 1000; ++i) {
        sigmas_.push_back(SigmaOf(i / 1000.0f * static_cast<float>(config.multiplier)));
      }
      break;
    case NoiseLevels::kFlux:
      for (int i = 1; i <= 10000; ++i) sigmas_.push_back(SigmaOf(i / 10000.0f));
      break;
    case NoiseLevels::kContinuousEdm: {
      const at::Tensor sigmas =
          at::linspace(std::log(config.sigma_min), std::log(config.sigma_max), 1000, at::kFloat)
              .exp_();
      sigmas_.assign(sigmas.const_data_ptr<float>(), sigmas.const_data_ptr<float>() + 1000);
      break;
    }
  }
}

float ModelSampling::TimestepOf(float sigma) const {
  switch (config_.levels) {
    case NoiseLevels::kDiscrete: {
      const float log_sigma = std::log(sigma);
      const auto nearest = std::min_element(
          log_sigmas_.begin(), log_sigmas_.end(),
          [&](float a, float b) { return std::abs(log_sigma - a) < std::abs(log_sigma - b); });
      return static_cast<float>(nearest - log_sigmas_.begin());
    }
    case NoiseLevels::kDiscreteFlow:
      return sigma * static_cast<float>(config_.multiplier);
    case NoiseLevels::kFlux:
      return sigma;
    case NoiseLevels::kContinuousEdm:
      return 0.25f * std::log(sigma);
  }
  return 0;
}

float ModelSampling::SigmaOf(float timestep) const {
  switch (config_.levels) {
    case NoiseLevels::kDiscrete: {
      const float t = std::clamp(timestep, 0.0f, static_cast<float>(log_sigmas_.size() - 1));
      const float low = std::floor(t);
      const float weight = t - low;
      return std::exp((1 - weight) * log_sigmas_[static_cast<size_t>(low)] +
                      weight * log_sigmas_[static_cast<size_t>(std::ceil(t))]);
    }
    case NoiseLevels::kDiscreteFlow:
      return ShiftTime(static_cast<float>(config_.shift),
                       timestep / static_cast<float>(config_.multiplier));
    case NoiseLevels::kFlux:
      return FluxShiftTime(config_.shift, timestep);
    case NoiseLevels::kContinuousEdm:
      return std::exp(timestep / 0.25f);
  }
  return 0;
}

double ModelSampling::SigmaOfPercent(double percent) const {
  if (percent <= 0) return is_flow() ? 1.0 : 999999999.9;
  if (percent >= 1) return 0;
  const double t = 1 - percent;
  switch (config_.levels) {
    case NoiseLevels::kDiscrete:
      return SigmaOf(static_cast<float>(t * 999.0));
    case NoiseLevels::kDiscreteFlow:
      return ShiftTime(config_.shift, t);
    case NoiseLevels::kFlux:
      return FluxShiftTime(config_.shift, t);
    case NoiseLevels::kContinuousEdm: {
      const double low = std::log(static_cast<double>(sigma_min()));
      const double high = std::log(static_cast<double>(sigma_max()));
      return std::exp((high - low) * t + low);
    }
  }
  return 0;
}

at::Tensor ModelSampling::CalculateInput(double sigma, const at::Tensor& x) const {
  if (is_flow()) return x;
  const float s = static_cast<float>(sigma), data = static_cast<float>(config_.sigma_data);
  return x / std::sqrt(s * s + data * data);
}

at::Tensor ModelSampling::CalculateDenoised(double sigma, const at::Tensor& output,
                                            const at::Tensor& x) const {
  const float s = static_cast<float>(sigma), data = static_cast<float>(config_.sigma_data);
  const float variance = s * s + data * data;
  const auto skip = [&] { return (x * (data * data)).div_(variance); };
  const auto scaled = [&] { return (output * s).mul_(data).div_(std::sqrt(variance)); };
  switch (config_.prediction) {
    case Prediction::kEps:
    case Prediction::kFlow:
      return x - output * s;
    case Prediction::kV:
      return skip().sub_(scaled());
    case Prediction::kEdm:
      return skip().add_(scaled());
  }
  return {};
}

at::Tensor ModelSampling::NoiseScaling(double sigma, const at::Tensor& noise,
                                       const at::Tensor& latent, bool max_denoise) const {
  const float s = static_cast<float>(sigma);
  if (is_flow()) return (noise * s).add_(latent, 1 - s);
  return (noise * (max_denoise ? std::sqrt(1 + s * s) : s)).add_(latent);
}

at::Tensor ModelSampling::InverseNoiseScaling(double sigma, const at::Tensor& latent) const {
  if (!is_flow()) return latent;
  return latent / (1 - static_cast<float>(sigma));
}

}  // namespace distorch::sampling
