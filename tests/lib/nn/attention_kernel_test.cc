#include "lib/nn/attention_kernel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

namespace distorch::nn {
namespace {

struct Free {
  void operator()(float* memory) const { std::free(memory); }
};
using Floats = std::unique_ptr<float[], Free>;

Floats Aligned(int64_t count) {
  return Floats(
      static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>((count + 15) / 16 * 64))));
}

// One head among others: rows are further apart than they are wide.
struct Case {
  int64_t queries, keys, width;
  float magnitude = 1;
  int64_t stride() const { return width + 24; }
};

std::vector<float> Values(int64_t count, float magnitude, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, magnitude);
  std::vector<float> values(static_cast<size_t>(count));
  std::generate(values.begin(), values.end(), [&] { return normal(random); });
  return values;
}

class Problem {
 public:
  explicit Problem(const Case& c)
      : q_(Values(c.queries * c.stride(), c.magnitude, 1)),
        k_(Values(c.keys * c.stride(), c.magnitude, 2)),
        v_(Values(c.keys * c.stride(), 1, 3)),
        out_(static_cast<size_t>(c.queries * c.stride()), NAN),
        head_{q_.data(),  k_.data(),  v_.data(),  out_.data(),
              c.stride(), c.stride(), c.stride(), c.stride(),
              c.queries,  c.keys,     c.width,    1 / std::sqrt(static_cast<float>(c.width))} {}

  // Over the queries in tasks of `step`.
  const std::vector<float>& Run(int64_t step) {
    const AttentionKernel& kernel = *FindAttentionKernel();
    const Floats packed = Aligned(kernel.PackedFloats(head_.keys, head_.width));
    const Floats scratch = Aligned(kernel.ScratchFloats(head_.width));
    kernel.Pack(head_, packed.get());
    for (int64_t begin = 0; begin < head_.queries; begin += step) {
      kernel.Attend(head_, packed.get(), begin, std::min(head_.queries, begin + step),
                    scratch.get());
    }
    return out_;
  }

  // The definition, in double.
  std::vector<double> Expected(int64_t query) const {
    std::vector<double> weights(static_cast<size_t>(head_.keys));
    for (int64_t key = 0; key < head_.keys; ++key) {
      for (int64_t c = 0; c < head_.width; ++c) {
        weights[static_cast<size_t>(key)] +=
            static_cast<double>(Q(query, c)) * head_.k[key * head_.k_stride + c] * head_.scale;
      }
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - largest);
    std::vector<double> result(static_cast<size_t>(head_.width));
    for (int64_t key = 0; key < head_.keys; ++key) {
      for (int64_t c = 0; c < head_.width; ++c) {
        result[static_cast<size_t>(c)] +=
            weights[static_cast<size_t>(key)] / sum * head_.v[key * head_.v_stride + c];
      }
    }
    return result;
  }

 private:
  float Q(int64_t query, int64_t c) const { return head_.q[query * head_.q_stride + c]; }

  std::vector<float> q_, k_, v_, out_;
  AttentionHead head_;
};

class AttentionKernelTest : public testing::Test {
 protected:
  void SetUp() override {
    if (FindAttentionKernel() == nullptr) GTEST_SKIP() << "no kernel for this processor";
  }
};

TEST_F(AttentionKernelTest, EqualsTheDefinition) {
  for (const Case& c :
       {Case{1, 1, 8}, Case{1, 77, 40}, Case{97, 3, 64}, Case{200, 300, 40}, Case{100, 513, 80},
        Case{13, 1000, 160}, Case{50, 50, 512}, Case{96, 256, 24}, Case{30, 600, 64, 3}}) {
    Problem problem(c);
    const std::vector<float>& out = problem.Run(kQueryBlock);
    for (int64_t query = 0; query < c.queries; ++query) {
      const std::vector<double> expected = problem.Expected(query);
      for (int64_t i = 0; i < c.width; ++i) {
        ASSERT_NEAR(out[static_cast<size_t>(query * c.stride() + i)],
                    expected[static_cast<size_t>(i)], 2e-5)
            << c.queries << " x " << c.keys << " x " << c.width << ", query " << query;
      }
    }
  }
}

TEST_F(AttentionKernelTest, LeavesWhatIsBesideTheHead) {
  const Case c{20, 30, 40};
  const std::vector<float> out = Problem(c).Run(kQueryBlock);
  for (int64_t query = 0; query < c.queries; ++query) {
    for (int64_t i = c.width; i < c.stride(); ++i) {
      ASSERT_TRUE(std::isnan(out[static_cast<size_t>(query * c.stride() + i)]));
    }
  }
}

TEST_F(AttentionKernelTest, TheDivisionIntoTasksChangesNoBit) {
  const Case c{301, 333, 40};
  const std::vector<float> whole = Problem(c).Run(4 * kQueryBlock);
  const std::vector<float> parts = Problem(c).Run(kQueryBlock);
  for (int64_t query = 0; query < c.queries; ++query) {
    for (int64_t i = 0; i < c.width; ++i) {
      const auto at = static_cast<size_t>(query * c.stride() + i);
      ASSERT_EQ(whole[at], parts[at]);
    }
  }
}

}  // namespace
}  // namespace distorch::nn
