#include "lib/nn/layers.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "lib/device/links.h"
#include "lib/device/simulated_device.h"
#include "lib/distorch/ledger.h"
#include "lib/distorch/streamer.h"
#include "lib/nn/upsample.h"

namespace distorch::nn {
namespace {

constexpr int64_t kMiB = 1 << 20;
const at::Device kSim0(at::kPrivateUse1, 0);
const DeviceId kCuda0{"cuda", 0}, kHost;

at::Tensor Random(at::IntArrayRef shape, int64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed));
}

// The largest difference, relative to the largest magnitude.
double Difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

TEST(UpsampledConv2dTest, IsTheConvolutionOfTheEnlargedMap) {
  const at::Tensor weight = Random({12, 8, 3, 3}, 1), bias = Random({12}, 2);
  for (const auto& [height, width] : {std::pair(1, 1), std::pair(5, 7), std::pair(16, 16)}) {
    const at::Tensor x =
        Random({2, 8, height, width}, 3).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor enlarged = at::upsample_nearest2d(x, {2 * height, 2 * width});
    EXPECT_LT(
        Difference(UpsampledConv2d(x, weight, bias), at::conv2d(enlarged, weight, bias, 1, 1)),
        1e-6);
    EXPECT_LT(Difference(UpsampledConv2d(x, weight, {}), at::conv2d(enlarged, weight, {}, 1, 1)),
              1e-6);
  }
}

TEST(UpsampledConv2dTest, KeepsTypeAndMemoryFormat) {
  const at::Tensor x =
      Random({1, 4, 6, 6}, 1).to(at::kBFloat16).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor y = UpsampledConv2d(x, Random({4, 4, 3, 3}, 2).to(at::kBFloat16), {});
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
}

TEST(TokensToPixelsTest, AreChannelsLastAndTheInverse) {
  for (const int64_t count : {1, 2}) {
    const at::Tensor map = Random({count, 6, 3, 5}, 1);
    const at::Tensor back = TokensToPixels(PixelsToTokens(map), 3, 5);
    EXPECT_TRUE(at::equal(back, map));
    EXPECT_EQ(back.suggest_memory_format(), at::MemoryFormat::ChannelsLast);
  }
}

// One convolution, with weights of its own on the CPU.
class Conv2dTest : public testing::Test {
 protected:
  Conv2dTest()
      : store_(&no_tensors_), meter_({kCuda0, kHost}), conv_(Scope(&store_, "conv"), 32, 48, {}) {
    slot().Fill({weight_, bias_}, {{DType::kF32}, {DType::kF32}}, &meter_);
  }

  WeightSlot& slot() { return *store_.slots()[0]; }
  at::Tensor Expected(const at::Tensor& x) const { return at::conv2d(x, weight_, bias_, 1, 1); }

  const at::Tensor weight_ = Random({48, 32, 3, 3}, 1), bias_ = Random({48}, 2);
  const at::Tensor x_ = Random({2, 32, 9, 7}, 3).contiguous(at::MemoryFormat::ChannelsLast);
  const NamedTensors no_tensors_;
  WeightStore store_;
  TransferMeter meter_;
  const Conv2d conv_;
};

TEST_F(Conv2dTest, PacksItsWeightAndGivesTheSameBits) {
  const int64_t bytes = slot().stored_bytes();
  EXPECT_TRUE(at::equal(conv_.Forward(x_), Expected(x_)));
  EXPECT_TRUE(slot().stored()[0].is_mkldnn());
  EXPECT_EQ(slot().stored_bytes(), bytes);
  EXPECT_TRUE(at::equal(conv_.Forward(x_), Expected(x_)));
  const at::Tensor larger =
      Random({1, 32, 40, 40}, 4).contiguous(at::MemoryFormat::ChannelsLast);  // of another size
  EXPECT_TRUE(at::equal(conv_.Forward(larger), Expected(larger)));
  const at::Tensor tiny = Random({1, 32, 4, 4}, 5).contiguous(at::MemoryFormat::ChannelsLast);
  EXPECT_TRUE(at::equal(conv_.Forward(tiny), Expected(tiny)));
  EXPECT_TRUE(conv_.Forward(tiny).is_contiguous(at::MemoryFormat::ChannelsLast));
}

TEST_F(Conv2dTest, WhatIsSharedBeforeItIsPackedStaysAsItIs) {
  WeightStore other(&no_tensors_);
  const Conv2d adapted(Scope(&other, "conv"), 32, 48, {});
  ASSERT_TRUE(other.Share(store_).ok());
  EXPECT_TRUE(at::equal(conv_.Forward(x_), Expected(x_)));
  EXPECT_FALSE(slot().stored()[0].is_mkldnn());
  EXPECT_TRUE(at::equal(adapted.Forward(x_), Expected(x_)));
}

TEST_F(Conv2dTest, WhatIsSharedOncePackedCanBePatched) {
  class Doubled : public WeightPatch {
   public:
    at::Tensor Apply(at::Tensor parameter) const override { return parameter.mul_(2); }
  };
  EXPECT_TRUE(at::equal(conv_.Forward(x_), Expected(x_)));
  WeightStore other(&no_tensors_);
  const Conv2d adapted(Scope(&other, "conv"), 32, 48, {});
  ASSERT_TRUE(other.Share(store_).ok());
  other.slots()[0]->AddPatch(0, std::make_shared<Doubled>());
  EXPECT_TRUE(at::equal(adapted.Forward(x_), at::conv2d(x_, weight_ * 2, bias_, 1, 1)));
  EXPECT_TRUE(at::equal(conv_.Forward(x_), Expected(x_)));
}

TEST_F(Conv2dTest, AFurtherDeviceThatStreamsItUnpacksIt) {
  ASSERT_TRUE(ConfigureSimulatedDevices({{kCuda0, 64 * kMiB}}).ok());
  EXPECT_TRUE(at::equal(conv_.Forward(x_), Expected(x_)));
  const LinkTable links;
  Ledger ledger{{{kCuda0, 64 * kMiB}, {kHost, 64 * kMiB}}};
  Streamer streamer({}, {kSim0, at::kCPU}, links, &meter_, &ledger);
  store_.StreamTo(&streamer, kSim0);
  EXPECT_FALSE(slot().stored()[0].is_mkldnn());
  EXPECT_TRUE(at::equal(conv_.Forward(x_.to(kSim0)).cpu(), Expected(x_)));
  EXPECT_TRUE(at::equal(conv_.Forward(x_), Expected(x_)));
  EXPECT_FALSE(slot().stored()[0].is_mkldnn());
  store_.Clear();
}

// In bfloat16, which is multiplied with packed weights where the processor can.
class LinearTest : public testing::Test {
 protected:
  LinearTest() : store_(&no_tensors_), linear_(Scope(&store_, "linear"), 64, 128) {
    slot().Fill({weight_, bias_}, {{DType::kBF16}, {DType::kBF16}}, &meter_);
  }

  WeightSlot& slot() { return *store_.slots()[0]; }
  static at::Tensor Bfloat16(at::IntArrayRef shape, int64_t seed) {
    return Random(shape, seed).to(at::kBFloat16);
  }
  // As far as bfloat16's rounding of sums in another order goes.
  static void ExpectNear(const at::Tensor& actual, const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& bias) {
    const at::Tensor exact =
        at::linear(x.to(at::kFloat), weight.to(at::kFloat), bias.to(at::kFloat));
    ASSERT_EQ(actual.scalar_type(), at::kBFloat16);
    EXPECT_LT(Difference(actual.to(at::kFloat), exact), 1.0 / 256);
  }

  const at::Tensor weight_ = Bfloat16({128, 64}, 1), bias_ = Bfloat16({128}, 2);
  const NamedTensors no_tensors_;
  WeightStore store_;
  TransferMeter meter_{{kCuda0, kHost}};
  const Linear linear_;
};

TEST_F(LinearTest, MultipliesRowsOfAnyNumberInAsManyBytes) {
  const int64_t bytes = slot().stored_bytes();
  for (const int64_t rows : {77, 1, 300}) {
    const at::Tensor x = Bfloat16({2, rows, 64}, rows);
    ExpectNear(linear_.Forward(x), x, weight_, bias_);
  }
  EXPECT_EQ(slot().stored_bytes(), bytes);
  const at::Tensor x = Random({3, 64}, 9);  // another type takes the same weights
  EXPECT_LT(
      Difference(linear_.Forward(x), at::linear(x, weight_.to(at::kFloat), bias_.to(at::kFloat))),
      1e-6);
}

TEST_F(LinearTest, WhatIsSharedOncePackedCanBePatched) {
  class Doubled : public WeightPatch {
   public:
    at::Tensor Apply(at::Tensor parameter) const override { return parameter.mul_(2); }
  };
  const at::Tensor x = Bfloat16({5, 64}, 3);
  ExpectNear(linear_.Forward(x), x, weight_, bias_);
  WeightStore other(&no_tensors_);
  const Linear adapted(Scope(&other, "linear"), 64, 128);
  ASSERT_TRUE(other.Share(store_).ok());
  other.slots()[0]->AddPatch(0, std::make_shared<Doubled>());
  ExpectNear(adapted.Forward(x), x, weight_ * 2, bias_);
  ExpectNear(linear_.Forward(x), x, weight_, bias_);
}

}  // namespace
}  // namespace distorch::nn
