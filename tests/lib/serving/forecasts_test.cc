#include "lib/serving/forecasts.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace distorch {
namespace {

// Two seconds of transfers, beside a second of computing.
double Step(double factor) { return std::max(2.0, factor * 1.0); }

TEST(FactorForTest, MakesThePredictionRight) {
  EXPECT_NEAR(FactorFor(5, 1, Step), 5, 1e-4);
  EXPECT_NEAR(FactorFor(2.5, 4, Step), 2.5, 1e-4);
}

TEST(FactorForTest, StaysWhereComputingIsNotWhatTakesTheTime) {
  EXPECT_EQ(FactorFor(2, 1.5, Step), 1.5);
  EXPECT_EQ(FactorFor(1, 1.5, Step), 1.5);
}

TEST(FactorForTest, HasAnEnd) { EXPECT_EQ(FactorFor(1e6, 3, Step), 1024); }

}  // namespace
}  // namespace distorch
