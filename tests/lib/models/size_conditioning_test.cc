// What SDXL's UNets are told beside the text, and what is refused.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/models/unet_model.h"
#include "lib/nn/unet.h"
#include "tests/lib/models/skeleton_of.h"
#include "tests/lib/models/unet_header.h"

namespace distorch {
namespace {

using models::GuidanceSide;
using testing::HasSubstr;

UNetShape SmallRefinerShape() {
  UNetShape shape;
  shape.class_channels = 32 + 5 * 256;
  shape.level_multipliers = {1, 1, 2, 2};
  shape.blocks_per_level = 2;
  shape.input_depth = {0, 0, 1, 1, 1, 1, 0, 0};
  shape.output_depth = {0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0};
  return shape;
}

class SizeConditioningTest : public testing::Test {
 protected:
  const models::DiffusionModel& Model(const UNetShape& shape) {
    auto written = SkeletonOf(folder_, UNetHeader(shape));
    EXPECT_TRUE(written.ok()) << written.status();
    written_ = *std::move(written);
    return *written_.skeleton.unet;
  }

  // What follows the pooled text.
  static at::Tensor Sizes(const models::DiffusionModel& model,
                          const std::optional<text::SizeConditioning>& size, GuidanceSide side) {
    text::Conditioning conditioning;
    conditioning.cross_attention = at::zeros({1, 77, model.context_width()});
    conditioning.pooled = at::ones({1, model.pooled_width()});
    conditioning.size = size;
    const text::Conditioning prepared = model.Prepare(conditioning, side, 96, 128);
    EXPECT_FALSE(prepared.size.has_value());
    EXPECT_TRUE(prepared.pooled.slice(1, 0, model.pooled_width()).eq(1).all().item<bool>());
    return prepared.pooled.slice(1, model.pooled_width());
  }
  static at::Tensor Embed(const std::vector<float>& values) {
    return nn::TimestepEmbedding(at::tensor(values, at::kFloat), 256).view({1, -1});
  }

 private:
  TempFolder folder_;
  WrittenSkeleton written_;
};

TEST_F(SizeConditioningTest, DefaultsToTheLatentInPixels) {
  const auto& model = Model(SmallSdxlShape());
  EXPECT_EQ(model.pooled_width(), 32);
  EXPECT_TRUE(at::equal(Sizes(model, std::nullopt, GuidanceSide::kPositive),
                        Embed({768, 1024, 0, 0, 768, 1024})));
}

TEST_F(SizeConditioningTest, TellsHeightBeforeWidthAndTheTargetLast) {
  const auto& model = Model(SmallSdxlShape());
  EXPECT_TRUE(at::equal(
      Sizes(model, text::SizeConditioning{1024, 768, 16, 8, 512, 640, {}}, GuidanceSide::kNegative),
      Embed({768, 1024, 8, 16, 640, 512})));
}

TEST_F(SizeConditioningTest, TheTargetDefaultsToTheSize) {
  const auto& model = Model(SmallSdxlShape());
  EXPECT_TRUE(at::equal(
      Sizes(model, text::SizeConditioning{1024, 512, 0, 0, 0, 0, {}}, GuidanceSide::kPositive),
      Embed({512, 1024, 0, 0, 512, 1024})));
}

TEST_F(SizeConditioningTest, TheRefinersScoreDependsOnTheSide) {
  const auto& model = Model(SmallRefinerShape());
  EXPECT_TRUE(
      at::equal(Sizes(model, std::nullopt, GuidanceSide::kPositive), Embed({768, 1024, 0, 0, 6})));
  EXPECT_TRUE(at::equal(Sizes(model, std::nullopt, GuidanceSide::kNegative),
                        Embed({768, 1024, 0, 0, 2.5f})));
  EXPECT_TRUE(at::equal(
      Sizes(model, text::SizeConditioning{64, 32, 0, 0, 0, 0, 9.0}, GuidanceSide::kNegative),
      Embed({32, 64, 0, 0, 9})));
}

TEST_F(SizeConditioningTest, PooledMustFit) {
  const auto& model = Model(SmallSdxlShape());
  text::Conditioning conditioning;
  conditioning.cross_attention = at::zeros({1, 77, model.context_width()});
  const auto error = [&] {
    return std::string(model.CheckConditioning(conditioning, 2, 8, 8).message());
  };
  EXPECT_THAT(error(), HasSubstr("pooled: shape is absent, expected [batch, 32]"));
  conditioning.pooled = at::zeros({1, 33});
  EXPECT_THAT(error(), HasSubstr("pooled: shape is [1, 33]"));
  conditioning.pooled = at::zeros({3, 32});
  EXPECT_THAT(error(), HasSubstr("pooled: batch is 3"));
  conditioning.pooled = at::zeros({2, 32});
  EXPECT_EQ(error(), "");
  conditioning.size.emplace();
  conditioning.size->aesthetic_score = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(error(), HasSubstr("size.aesthetic_score"));
}

}  // namespace
}  // namespace distorch
