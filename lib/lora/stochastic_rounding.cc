#include "lib/lora/stochastic_rounding.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <mutex>

namespace distorch::lora {
namespace {

// e4m3fn: 4 bits of exponent, biased by 7; 3 of mantissa; the largest value is 448.
constexpr int kMantissaBits = 3;
constexpr int kExponentBias = 7;
constexpr int kMaxExponent = 15;
constexpr double kMax = 448;
// Weights are rounded in slices of about so many elements, each with its own draw.
constexpr double kSliceElements = 4096.0 * 4096.0;

at::Generator MakeGenerator(const at::Device& device, uint64_t seed) {
  if (!device.is_cuda()) return at::detail::createCPUGenerator(seed);
  at::Generator generator = at::globalContext()
                                .getAcceleratorHooksInterface(device.type())
                                .getNewGenerator(device.index());
  const std::scoped_lock<std::mutex> lock(generator.mutex());
  generator.set_current_seed(seed);
  return generator;
}

// Uniform in [0, 1) in `like`'s shape, type and place.
at::Tensor Draw(const at::Tensor& like, at::Generator& generator) {
  return at::rand(like.sizes(), generator, like.options().device(generator.device()))
      .to(like.device());
}

// In half precision throughout, as the reference computes it.
at::Tensor RoundSlice(const at::Tensor& slice, at::Generator& generator) {
  const at::Tensor value = slice.to(at::kHalf);
  const at::Tensor magnitude = value.abs();
  const at::Tensor exponent =
      at::clamp(at::floor(at::log2(magnitude)) + kExponentBias, 0, kMaxExponent);
  const at::Tensor normal = exponent.ne(0);
  const at::Tensor power = at::exp2(exponent - kExponentBias);
  const double subnormal_step = std::ldexp(1.0, 1 - kExponentBias - kMantissaBits);
  at::Tensor steps = at::where(normal, (magnitude / power - 1.0) * (1 << kMantissaBits),
                               magnitude / subnormal_step);
  steps = (steps + Draw(steps, generator)).floor() / (1 << kMantissaBits);
  const at::Tensor rounded =
      at::where(normal, power * (1.0 + steps), std::ldexp(1.0, 1 - kExponentBias) * steps);
  return (value.sign() * rounded).clamp(-kMax, kMax);
}

}  // namespace

uint32_t RoundingSeed(std::string_view parameter_name) {
  constexpr uint32_t kPolynomial = 0xEDB88320;
  uint32_t crc = 0xFFFFFFFF;
  for (char c : parameter_name) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
  }
  return crc ^ 0xFFFFFFFF;
}

at::Tensor StochasticRounding::Apply(at::Tensor parameter) const {
  at::Generator generator = MakeGenerator(parameter.device(), seed_);
  const int64_t rows = parameter.size(0);
  const double slices = std::max(1.0, static_cast<double>(parameter.numel()) / kSliceElements);
  const auto step = std::max<int64_t>(
      1, static_cast<int64_t>(std::nearbyint(static_cast<double>(rows) / slices)));
  for (int64_t row = 0; row < rows; row += step) {
    at::Tensor slice = parameter.narrow(0, row, std::min(step, rows - row));
    slice.copy_(RoundSlice(scale_ == 1 ? slice : slice / scale_, generator));
  }
  return scale_ == 1 ? parameter : parameter.mul_(scale_);
}

}  // namespace distorch::lora
