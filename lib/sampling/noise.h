// Gaussian noise that depends on the seed alone: drawn by PyTorch's generator on the CPU, whatever
// the device.
#ifndef LIB_SAMPLING_NOISE_H_
#define LIB_SAMPLING_NOISE_H_

#include <ATen/ATen.h>

#include <cstdint>

namespace distorch::sampling {

// A stream of float32 noise, as torch.randn(shape, generator=torch.Generator().manual_seed(seed))
// gives it. Not thread-safe.
class NoiseSource {
 public:
  explicit NoiseSource(uint64_t seed);

  // The next draw, shaped as `like` and on its device.
  at::Tensor Draw(const at::Tensor& like);

 private:
  at::Generator generator_;
};

// The first noise of a seed, float32 in host memory.
at::Tensor PrepareNoise(at::IntArrayRef shape, uint64_t seed);

}  // namespace distorch::sampling

#endif  // LIB_SAMPLING_NOISE_H_
