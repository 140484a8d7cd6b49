// Noise is PyTorch's and torchsde's, to the bit: an image is its seed.
#include "lib/sampling/noise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lib/sampling/brownian_tree.h"

namespace distorch::sampling {
namespace {

using ::testing::ElementsAre;

std::vector<float> First(const at::Tensor& tensor, int64_t count) {
  const at::Tensor flat = tensor.flatten().contiguous();
  return {flat.const_data_ptr<float>(),
          flat.const_data_ptr<float>() + std::min(count, flat.numel())};
}

TEST(NoiseTest, IsTorchRandnOfTheSeed) {
  // torch.randn(shape, generator=torch.Generator().manual_seed(seed)).flatten()[:4]
  EXPECT_THAT(First(PrepareNoise({1, 4, 64, 64}, 42ull), 4),
              ElementsAre(1.92691529f, 1.48728406f, 0.900717199f, -2.10552096f));
  EXPECT_THAT(First(PrepareNoise({2, 4, 3, 5}, 0ull), 4),
              ElementsAre(-1.12583983f, -1.1523602f, -0.250578582f, -0.433878809f));
  EXPECT_THAT(First(PrepareNoise({5}, 18446744073709551615ull), 4),
              ElementsAre(1.21976304f, -0.392979473f, 1.0230751f, -0.373421133f));
}

TEST(NoiseTest, ASourceContinuesTheStreamOfTheFirstNoise) {
  const at::Tensor like = at::zeros({1, 4, 8, 8});
  NoiseSource source(42);
  const at::Tensor first = source.Draw(like), second = source.Draw(like);
  EXPECT_TRUE(at::equal(first, PrepareNoise(like.sizes(), 42)));
  EXPECT_FALSE(at::equal(first, second));
  EXPECT_THAT(First(second, 4),
              ElementsAre(-0.685481608f, 0.563558996f, -1.50717509f, -1.61066604f));
}

TEST(BrownianTreeTest, SeedsAreNumpysSeedSequence) {
  // numpy.random.SeedSequence(entropy, pool_size=…).generate_state(…)
  EXPECT_THAT(HashSeeds(std::vector<uint32_t>{7}, 24, 3),
              ElementsAre(1376543887u, 623213690u, 436845524u));
  EXPECT_THAT(HashSeeds(std::vector<uint32_t>{1, 2}, 4, 4),
              ElementsAre(1596810411u, 3615836353u, 2321460393u, 2364082729u));
  EXPECT_THAT(
      HashSeeds(std::vector<uint32_t>{0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,
                                      15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29},
                24, 4),
      ElementsAre(3794954081u, 2960842568u, 757315139u, 176513823u));
}

TEST(BrownianTreeTest, NoiseIsTorchsdes) {
  // tree = torchsde.BrownianTree(0.0292, torch.zeros(1, 4, 3, 2), 14.6146, entropy=seed)
  // -tree(b, a).flatten()[:3] / sqrt(a - b) for a > b
  const at::Tensor like = at::zeros({1, 4, 3, 2});
  const BrownianTree tree(like, 0.0292f, 14.6146f, 7ull);
  EXPECT_TRUE(at::allclose(tree.Noise(14.6146f, 9.1f).flatten().slice(0, 0, 3),
                           at::tensor({-0.33388707f, 0.492211521f, 1.75439715f}), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(tree.Noise(9.1f, 3.3f).flatten().slice(0, 0, 3),
                           at::tensor({0.433810472f, -0.389035076f, -0.340263873f}), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(tree.Noise(3.3f, 0.0292f).flatten().slice(0, 0, 3),
                           at::tensor({-0.535158992f, 1.05978978f, -0.31531173f}), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(tree.Noise(0.5f, 0.4999995f).flatten().slice(0, 0, 3),
                           at::tensor({0.738599122f, 2.72178817f, -1.82501876f}), 1e-6, 1e-6));
  const BrownianTree big_seed(like, 0.0292f, 14.6146f, 9223372036854775813ull);
  EXPECT_TRUE(at::allclose(big_seed.Noise(14.6146f, 9.1f).flatten().slice(0, 0, 3),
                           at::tensor({1.92489004f, 0.37492612f, 0.154253498f}), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(big_seed.Noise(9.1f, 3.3f).flatten().slice(0, 0, 3),
                           at::tensor({-0.532871664f, -0.647780061f, -0.940061688f}), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(big_seed.Noise(3.3f, 0.0292f).flatten().slice(0, 0, 3),
                           at::tensor({-1.06259942f, 0.69529444f, 1.327402f}), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(big_seed.Noise(0.5f, 0.4999995f).flatten().slice(0, 0, 3),
                           at::tensor({-1.8560828f, 0.857236981f, -2.91832089f}), 1e-6, 1e-6));
}

TEST(BrownianTreeTest, IncrementsAddUp) {
  const BrownianTree tree(at::zeros({1, 2, 2, 2}), 0.1, 10, 5);
  const auto increment = [&](double a, double b) {
    return tree.Noise(a, b) * std::sqrt(std::abs(b - a));
  };
  const at::Tensor sum = increment(9, 4) + increment(4, 0.3);
  EXPECT_TRUE(at::allclose(increment(9, 0.3), sum, 1e-5, 1e-5));
  EXPECT_TRUE(at::equal(tree.Noise(4, 9), -tree.Noise(9, 4)));
}

}  // namespace
}  // namespace distorch::sampling
