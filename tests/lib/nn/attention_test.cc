#include "lib/nn/attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lib/device/simulated_device.h"

namespace distorch::nn {
namespace {

at::Tensor Definition(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      int64_t heads) {
  const auto split = [&](const at::Tensor& t) {
    return t.to(at::kDouble).unflatten(2, {heads, t.size(2) / heads}).transpose(1, 2);
  };
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(2) / heads));
  const at::Tensor weights = at::matmul(split(q), split(k).transpose(2, 3)).mul(scale).softmax(-1);
  return at::matmul(weights, split(v)).transpose(1, 2).flatten(2).to(q.scalar_type());
}

struct Operands {
  at::Tensor q, k, v;
};

Operands Random(int64_t batch, int64_t queries, int64_t keys, int64_t width,
                at::ScalarType dtype = at::kFloat) {
  at::manual_seed(4);
  const auto normal = [&](int64_t rows) { return at::randn({batch, rows, width}).to(dtype); };
  return {normal(queries), normal(keys), normal(keys)};
}

void ExpectNear(const at::Tensor& actual, const at::Tensor& expected, double tolerance) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  ASSERT_EQ(actual.scalar_type(), expected.scalar_type());
  EXPECT_LT((actual - expected).abs().max().item<double>(), tolerance);
}

TEST(AttentionTest, EqualsTheDefinition) {
  for (const int64_t heads : {1, 2, 8}) {
    const auto [q, k, v] = Random(2, 130, 77, 320);
    ExpectNear(Attention(q, k, v, heads), Definition(q, k, v, heads), 2e-6);
  }
}

TEST(AttentionTest, TakesPartsOfAProjection) {
  at::manual_seed(5);
  const std::vector<at::Tensor> parts = at::randn({2, 40, 3 * 64}).chunk(3, 2);
  ExpectNear(Attention(parts[0], parts[1], parts[2], 2),
             Definition(parts[0], parts[1], parts[2], 2), 2e-6);
  const at::Tensor turned = at::randn({1, 64, 40}).transpose(1, 2);
  ExpectNear(Attention(turned, turned, turned, 2), Definition(turned, turned, turned, 2), 2e-6);
}

TEST(AttentionTest, WidthsAndTypesThatTheKernelDoesNotKnow) {
  const auto [q, k, v] = Random(1, 20, 30, 12);
  ExpectNear(Attention(q, k, v, 3), Definition(q, k, v, 3), 2e-6);
  const auto [half_q, half_k, half_v] = Random(1, 20, 30, 64, at::kHalf);
  ExpectNear(Attention(half_q, half_k, half_v, 2), Definition(half_q, half_k, half_v, 2), 2e-3);
}

TEST(AttentionTest, Bfloat16EqualsTheDefinition) {
  for (const int64_t heads : {1, 2, 8}) {
    const auto [q, k, v] = Random(2, 130, 77, 320, at::kBFloat16);
    ExpectNear(Attention(q, k, v, heads), Definition(q, k, v, heads), 2e-2);
  }
}

TEST(AttentionTest, AMaskHidesKeys) {
  const auto [q, k, v] = Random(1, 10, 20, 64);
  at::Tensor mask = at::zeros({1, 1, 1, 20});
  mask.slice(3, 15).fill_(-1e9);
  ExpectNear(Attention(q, k, v, 2, mask), Definition(q, k.slice(1, 0, 15), v.slice(1, 0, 15), 2),
             2e-6);
}

// What guidance on two devices and in one batch rely on.
TEST(AttentionTest, AnItemDoesNotDependOnItsBatch) {
  const auto [q, k, v] = Random(3, 200, 200, 80);
  const at::Tensor all = Attention(q, k, v, 2);
  const auto second = [](const at::Tensor& t) { return t.slice(0, 1, 2); };
  EXPECT_TRUE(all[1].equal(Attention(second(q), second(k), second(v), 2)[0]));
}

TEST(AttentionTest, ASimulatedDeviceGivesTheSameBits) {
  ASSERT_TRUE(ConfigureSimulatedDevices({{{"cuda", 0}, 64 << 20}}).ok());
  const at::Device device(at::kPrivateUse1, 0);
  const auto [q, k, v] = Random(2, 130, 77, 320);
  const at::Tensor there = Attention(q.to(device), k.to(device), v.to(device), 8);
  EXPECT_EQ(there.device(), device);
  EXPECT_TRUE(there.cpu().equal(Attention(q, k, v, 8)));
}

}  // namespace
}  // namespace distorch::nn
