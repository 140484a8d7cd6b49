// Rounding to fp8 as the reference rounds patched weights that it stores so.
#ifndef LIB_LORA_STOCHASTIC_ROUNDING_H_
#define LIB_LORA_STOCHASTIC_ROUNDING_H_

#include <cstdint>
#include <string_view>

#include "lib/distorch/weight_patch.h"

namespace distorch::lora {

// The seed of a parameter's rounding: the CRC-32 (IEEE 802.3) of its name.
uint32_t RoundingSeed(std::string_view parameter_name);

// Rounds to fp8 e4m3fn, up or down with the odds of how near each is, so that the small changes of
// an adapter survive on average; the result is in float32 again. What is rounded is the parameter
// divided by `scale`, as scaled fp8 files store it. Draws anew from the same seed
// every time: on the CPU, and on simulated devices, from PyTorch's CPU generator, on others from
// the device's own.
class StochasticRounding : public WeightPatch {
 public:
  explicit StochasticRounding(uint32_t seed, float scale = 1) : seed_(seed), scale_(scale) {}
  at::Tensor Apply(at::Tensor parameter) const override;

 private:
  const uint32_t seed_;
  const float scale_;
};

}  // namespace distorch::lora

#endif  // LIB_LORA_STOCHASTIC_ROUNDING_H_
