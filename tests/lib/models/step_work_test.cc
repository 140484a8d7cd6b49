// The counts for models of real size.
#include "lib/models/step_work.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>

#include "lib/checkpoint/checkpoint_file.h"
#include "lib/models/family.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch::models {
namespace {

struct Counted {
  std::string header, family;
  StepSize size;
  double teraflops;  // of one item of the batch
};

class StepWorkTest : public testing::TestWithParam<Counted> {
 protected:
  StepWorkTest() {
    const auto entries = RealHeader(DISTORCH_GOLDEN_DIR, GetParam().header);
    EXPECT_TRUE(entries.ok()) << entries.status();
    EXPECT_TRUE(WriteSafetensors(folder_.path() + "/real.safetensors", *entries).ok());
    auto file = CheckpointFile::Open(folder_.path() + "/real.safetensors");
    EXPECT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    auto skeleton = BuildSkeleton(*file_);
    EXPECT_TRUE(skeleton.ok()) << skeleton.status();
    skeleton_ = *std::move(skeleton);
  }

  const TempFolder folder_;
  std::shared_ptr<const CheckpointFile> file_;
  Skeleton skeleton_;
};

double Flops(const StepWork& work) {
  return std::accumulate(
      work.blocks.begin(), work.blocks.end(), 0.0,
      [](double sum, const StepWork::Block& block) { return sum + block.flops; });
}

TEST_P(StepWorkTest, CountsEveryProduct) {
  const Counted& expected = GetParam();
  const StepWork work = skeleton_.unet->Work(expected.size);
  ASSERT_EQ(work.blocks.size(), skeleton_.unet->store().slots().size());
  EXPECT_NEAR(Flops(work) / static_cast<double>(expected.size.batch) / 1e12, expected.teraflops,
              0.01 * expected.teraflops);
  StepSize twice = expected.size;
  twice.batch *= 2;
  EXPECT_NEAR(Flops(skeleton_.unet->Work(twice)), 2 * Flops(work), 1e-9 * Flops(work));
}

TEST_P(StepWorkTest, UnitsAreGivenWhatUnitsBeforeThemMade) {
  const StepWork work = skeleton_.unet->Work(GetParam().size);
  ASSERT_GT(work.units.size(), 15u);
  size_t skips = 0;
  for (size_t i = 0; i < work.units.size(); ++i) {
    const StepWork::Unit& unit = work.units[i];
    EXPECT_LT(unit.blocks.first, unit.blocks.end);
    const size_t before = i == 0 ? 0 : work.units[i - 1].blocks.end;
    EXPECT_GE(unit.blocks.first, before);
    ASSERT_FALSE(unit.inputs.empty());
    EXPECT_EQ(unit.inputs[0].unit, static_cast<int>(i) - 1);
    for (size_t input = 1; input < unit.inputs.size(); ++input) {
      EXPECT_LT(unit.inputs[input].unit, static_cast<int>(i) - 1);
      EXPECT_GT(unit.inputs[input].bytes, 0);
      ++skips;
    }
  }
  EXPECT_GT(work.output_bytes, 0);
  const bool is_unet = GetParam().family.starts_with("sd1") || GetParam().family == "sdxl";
  EXPECT_EQ(skips > 0, is_unet);
}

// Two operations a multiply-add. SD1.5's count is the published one, attention's products included;
// SDXL's is the published 5.98 without them, and 0.78 for them. The transformers' are counted by
// hand: parameters times tokens, and 4 · tokens² · width in each attention.
INSTANTIATE_TEST_SUITE_P(
    RealHeaders, StepWorkTest,
    testing::Values(
        Counted{"sd15.f16", "sd1", {.height = 64, .width = 64}, 0.803},
        Counted{"sdxl.f16", "sdxl", {.height = 128, .width = 128}, 6.76},
        Counted{"sd3_medium_incl_clips_t5.f16", "sd3", {.height = 128, .width = 128}, 8.44},
        Counted{"flux_dev.fp8", "flux", {.height = 128, .width = 128, .batch = 1}, 69.5}),
    [](const auto& info) { return info.param.family; });

TEST(StepWorkTest, SkipsOfAUNetComeFromTheBlockOfTheSameSize) {
  // Two input blocks, a middle and two output blocks, the second input block half the size.
  const ModelShape shape{{{"diffusion_model.input_blocks.0.0", {8, 4, 3, 3}},
                          {"diffusion_model.input_blocks.1.0.op", {8, 8, 3, 3}},
                          {"diffusion_model.middle_block.0.out_layers.3", {16, 8, 3, 3}},
                          {"diffusion_model.output_blocks.0.0.out_layers.3", {8, 24, 3, 3}},
                          {"diffusion_model.output_blocks.0.1.conv", {8, 8, 3, 3}},
                          {"diffusion_model.output_blocks.1.0.out_layers.3", {8, 16, 3, 3}}},
                         {{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}, {5, 6}}};
  const StepWork work = UNetWork(shape, {.height = 6, .width = 10, .batch = 1, .element_bytes = 2});
  const auto inputs = [&](size_t unit) { return work.units[unit].inputs; };
  ASSERT_EQ(inputs(3).size(), 2u);
  EXPECT_EQ(inputs(3)[1].unit, 1);
  EXPECT_EQ(inputs(3)[1].bytes, 3 * 5 * 8 * 2);
  ASSERT_EQ(inputs(4).size(), 1u);
  ASSERT_EQ(inputs(5).size(), 2u);
  EXPECT_EQ(inputs(5)[0].bytes, 6 * 10 * 8 * 2);
  EXPECT_EQ(inputs(5)[1].unit, 0);
  EXPECT_EQ(inputs(5)[1].bytes, 6 * 10 * 8 * 2);
  EXPECT_DOUBLE_EQ(work.blocks[1].flops, 2.0 * 3 * 5 * 8 * 8 * 9);
  EXPECT_EQ(work.output_bytes, 6 * 10 * 8 * 2);
}

TEST(TextWorkTest, LooksUpEmbeddingsForNothing) {
  const StepWork work =
      TextWork({{{"clip_l.transformer.text_model.embeddings.token_embedding", {49408, 768}},
                 {"clip_l.transformer.text_model.encoder.layers.0.mlp.fc1", {3072, 768}}},
                {}},
               1, 2);
  EXPECT_EQ(work.blocks[0].flops, 0);
  EXPECT_DOUBLE_EQ(work.blocks[1].flops, 2.0 * 77 * 3072 * 768);
}

}  // namespace
}  // namespace distorch::models
