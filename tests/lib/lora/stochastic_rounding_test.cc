#include "lib/lora/stochastic_rounding.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

namespace distorch::lora {
namespace {

constexpr std::string_view kName = "diffusion_model.input_blocks.1.1.proj_in.weight";

at::Tensor Values() {
  at::Tensor values = (at::arange(64, at::kFloat) - 31).mul(0.0371).reshape({8, 8});
  values[0][0] = 600;      // past the largest value
  values[0][1] = -0.0009;  // below the smallest step
  values[0][2] = 0.003;
  return values;
}

TEST(StochasticRoundingTest, SeedIsTheNamesCrc) {
  EXPECT_EQ(RoundingSeed("123456789"), 0xCBF43926u);  // the polynomial's published check value
  EXPECT_EQ(RoundingSeed(kName), 1365242852u);
}

TEST(StochasticRoundingTest, EqualsTheReference) {
  // comfy.float.stochastic_rounding of Values() with this seed.
  const std::vector<float> expected = {
      448.0,     -0.001953125, 0.00390625, -1.125,    -1.0,       -0.9375,   -0.875,      -0.875,
      -0.875,    -0.8125,      -0.75,      -0.75,     -0.6875,    -0.6875,   -0.625,      -0.5625,
      -0.5625,   -0.5,         -0.46875,   -0.46875,  -0.40625,   -0.375,    -0.34375,    -0.3125,
      -0.25,     -0.21875,     -0.1875,    -0.140625, -0.1171875, -0.078125, -0.03515625, 0.0,
      0.0390625, 0.078125,     0.109375,   0.15625,   0.1875,     0.21875,   0.28125,     0.28125,
      0.34375,   0.375,        0.40625,    0.46875,   0.5,        0.5,       0.5625,      0.5625,
      0.625,     0.6875,       0.6875,     0.75,      0.8125,     0.8125,    0.875,       0.875,
      0.9375,    0.9375,       1.0,        1.0,       1.0,        1.125,     1.125,       1.25};
  const at::Tensor rounded = StochasticRounding(RoundingSeed(kName)).Apply(Values());
  const at::Tensor wanted = at::tensor(expected).reshape({8, 8});
  EXPECT_TRUE(at::equal(rounded, wanted)) << rounded;
}

TEST(StochasticRoundingTest, RoundsToNeighboursAndKeepsTheMean) {
  // 0.53 lies between the fp8 values 0.5 and 0.5625.
  const at::Tensor rounded = StochasticRounding(7).Apply(at::full({64, 256}, 0.53, at::kFloat));
  EXPECT_TRUE(at::logical_or(rounded.eq(0.5), rounded.eq(0.5625)).all().item<bool>());
  EXPECT_NEAR(rounded.mean().item<double>(), 0.53, 1e-3);
}

TEST(StochasticRoundingTest, Fp8ValuesStayAsTheyAre) {
  const at::Tensor exact = at::randn({32, 32}).to(at::kFloat8_e4m3fn).to(at::kFloat);
  EXPECT_TRUE(at::equal(StochasticRounding(3).Apply(exact.clone()), exact));
}

}  // namespace
}  // namespace distorch::lora
