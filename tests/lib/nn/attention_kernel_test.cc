#include "lib/nn/attention_kernel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

namespace distorch::nn {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

Memory Aligned(int64_t bytes) {
  return Memory(std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64)));
}

float ToFloat(float value) { return value; }
float ToFloat(Bfloat16Bits bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

template <typename T>
T FromFloat(float value) {
  if constexpr (std::is_same_v<T, float>) return value;
  return static_cast<T>(std::bit_cast<uint32_t>(value) >> 16);
}

// One head among others: rows are further apart than they are wide.
struct Case {
  int64_t queries, keys, width;
  float magnitude = 1;
  int64_t stride() const { return width + 24; }
};

template <typename T>
std::vector<T> Values(int64_t count, float magnitude, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, magnitude);
  std::vector<T> values(static_cast<size_t>(count));
  std::generate(values.begin(), values.end(), [&] { return FromFloat<T>(normal(random)); });
  return values;
}

template <typename T>
class Problem {
 public:
  explicit Problem(const Case& c)
      : q_(Values<T>(c.queries * c.stride(), c.magnitude, 1)),
        k_(Values<T>(c.keys * c.stride(), c.magnitude, 2)),
        v_(Values<T>(c.keys * c.stride(), 1, 3)),
        out_(static_cast<size_t>(c.queries * c.stride()), FromFloat<T>(NAN)),
        head_{q_.data(),  k_.data(),  v_.data(),  out_.data(),
              c.stride(), c.stride(), c.stride(), c.stride(),
              c.queries,  c.keys,     c.width,    1 / std::sqrt(static_cast<float>(c.width))} {}

  // Over the queries in tasks of `step`.
  const std::vector<T>& Run(int64_t step) {
    const AttentionKernel<T>& kernel = *FindAttentionKernel<T>();
    const Memory packed = Aligned(kernel.PackedBytes(head_.keys, head_.width));
    const Memory scratch = Aligned(kernel.ScratchBytes(head_.width));
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
            static_cast<double>(ToFloat(head_.q[query * head_.q_stride + c])) *
            ToFloat(head_.k[key * head_.k_stride + c]) * head_.scale;
      }
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - largest);
    std::vector<double> result(static_cast<size_t>(head_.width));
    for (int64_t key = 0; key < head_.keys; ++key) {
      for (int64_t c = 0; c < head_.width; ++c) {
        result[static_cast<size_t>(c)] +=
            weights[static_cast<size_t>(key)] / sum * ToFloat(head_.v[key * head_.v_stride + c]);
      }
    }
    return result;
  }

 private:
  std::vector<T> q_, k_, v_, out_;
  AttentionHead<T> head_;
};

template <typename T>
class AttentionKernelTest : public testing::Test {
 protected:
  void SetUp() override {
    if (FindAttentionKernel<T>() == nullptr) GTEST_SKIP() << "no kernel for this processor";
  }
  // Of bfloat16 weights half a unit in the last place each, and of the result as much again.
  static double Tolerance(double expected) {
    return std::is_same_v<T, float> ? 2e-5 : 0.004 * (1 + std::abs(expected));
  }
};

using Types = testing::Types<float, Bfloat16Bits>;
TYPED_TEST_SUITE(AttentionKernelTest, Types);

TYPED_TEST(AttentionKernelTest, EqualsTheDefinition) {
  for (const Case& c :
       {Case{1, 1, 8}, Case{1, 77, 40}, Case{97, 3, 64}, Case{200, 300, 40}, Case{100, 513, 80},
        Case{13, 1100, 160}, Case{50, 50, 512}, Case{96, 256, 24}, Case{30, 600, 64, 3}}) {
    Problem<TypeParam> problem(c);
    const std::vector<TypeParam>& out = problem.Run(kQueryBlock);
    for (int64_t query = 0; query < c.queries; ++query) {
      const std::vector<double> expected = problem.Expected(query);
      for (int64_t i = 0; i < c.width; ++i) {
        const double value = expected[static_cast<size_t>(i)];
        ASSERT_NEAR(ToFloat(out[static_cast<size_t>(query * c.stride() + i)]), value,
                    this->Tolerance(value))
            << c.queries << " x " << c.keys << " x " << c.width << ", query " << query;
      }
    }
  }
}

TYPED_TEST(AttentionKernelTest, LeavesWhatIsBesideTheHead) {
  const Case c{20, 30, 40};
  const std::vector<TypeParam> out = Problem<TypeParam>(c).Run(kQueryBlock);
  for (int64_t query = 0; query < c.queries; ++query) {
    for (int64_t i = c.width; i < c.stride(); ++i) {
      ASSERT_TRUE(std::isnan(ToFloat(out[static_cast<size_t>(query * c.stride() + i)])));
    }
  }
}

TYPED_TEST(AttentionKernelTest, TheDivisionIntoTasksChangesNoBit) {
  const Case c{301, 333, 40};
  const std::vector<TypeParam> whole = Problem<TypeParam>(c).Run(4 * kQueryBlock);
  const std::vector<TypeParam> parts = Problem<TypeParam>(c).Run(kQueryBlock);
  for (int64_t query = 0; query < c.queries; ++query) {
    for (int64_t i = 0; i < c.width; ++i) {
      const auto at = static_cast<size_t>(query * c.stride() + i);
      ASSERT_EQ(whole[at], parts[at]);
    }
  }
}

}  // namespace
}  // namespace distorch::nn
