#include "lib/sampling/noise.h"

#include <ATen/CPUGeneratorImpl.h>

namespace distorch::sampling {

NoiseSource::NoiseSource(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

at::Tensor NoiseSource::Draw(const at::Tensor& like) {
  return at::randn(like.sizes(), generator_, at::TensorOptions(at::kFloat).device(at::kCPU))
      .to(like.device());
}

at::Tensor PrepareNoise(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed),
                   at::TensorOptions(at::kFloat).device(at::kCPU));
}

}  // namespace distorch::sampling
