// A Brownian motion that can be asked for any increment in any order and always answers with the
// same path.
#ifndef LIB_SAMPLING_BROWNIAN_TREE_H_
#define LIB_SAMPLING_BROWNIAN_TREE_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

namespace distorch::sampling {

// numpy.random.SeedSequence (O'Neill, "Developing a seed_seq Alternative", 2015): `count` seeds
// hashed from words of entropy, through a pool of `pool_size` words.
std::vector<uint32_t> HashSeeds(std::span<const uint32_t> entropy, size_t pool_size, size_t count);

// The path is that of torchsde.BrownianTree(entropy=seed) (Li et al., "Scalable Gradients for
// Stochastic Differential Equations", 2020, section 4): an interval's increment is split at its
// middle by a Brownian bridge whose noise is seeded by the interval's place in the tree. Times are
// rounded to 1e-6. Immutable; noise is drawn on the CPU.
class BrownianTree {
 public:
  // Over [start, end], start < end; increments have the shape and the device of `like`.
  BrownianTree(const at::Tensor& like, double start, double end, uint64_t seed);

  // The increment from a to b, divided by sqrt(|b - a|), so that its variance is 1. Times outside
  // of the interval count as its ends; a != b.
  at::Tensor Noise(double a, double b) const;

 private:
  // A node of the tree: `key` is the path to it (0: left, 1: right), `depth` the path's length.
  struct Node {
    double start, end;
    uint64_t key;
    uint32_t depth;
    at::Tensor increment;
  };

  at::Tensor Draw(uint32_t seed) const;
  void Accumulate(const Node& node, double from, double to, at::Tensor& sum) const;

  const std::vector<int64_t> shape_;
  const at::Device device_;
  const uint64_t seed_;
  Node root_;
};

}  // namespace distorch::sampling

#endif  // LIB_SAMPLING_BROWNIAN_TREE_H_
