#include "lib/models/vae_work.h"

#include <gtest/gtest.h>

#include <string>

#include "lib/checkpoint/checkpoint_file.h"
#include "lib/models/family.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch::models {
namespace {

// Two levels of 32 and 64 channels over 4 of latent.
ModelShape Small() {
  const std::string d = "first_stage_model.decoder.", e = "first_stage_model.encoder.";
  return {{{d + "conv_in", {64, 4, 3, 3}},
           {d + "mid.attn_1.q", {64, 64, 1, 1}},
           {d + "up.1.block.0.conv1", {64, 64, 3, 3}},
           {d + "up.1.upsample.conv", {64, 64, 3, 3}},
           {d + "up.0.block.0.norm1", {64}},
           {d + "up.0.block.0.conv1", {32, 64, 3, 3}},
           {d + "norm_out", {32}},
           {d + "conv_out", {3, 32, 3, 3}},
           {e + "conv_in", {32, 3, 3, 3}},
           {e + "down.0.block.0.conv1", {32, 32, 3, 3}},
           {e + "down.0.downsample.conv", {32, 32, 3, 3}},
           {e + "down.1.block.0.conv1", {64, 32, 3, 3}},
           {e + "conv_out", {8, 64, 3, 3}}},
          {}};
}

TEST(VaeWorkTest, IsTheLargestOperationAtItsLevel) {
  // 6 x 10 latent pixels are 12 x 20 of the picture.
  EXPECT_EQ(DecodeBytesAtOnce(Small(), 6, 10, 2), 12 * 20 * (64 + 64) * 2);  // up.0…norm1
  EXPECT_EQ(EncodeBytesAtOnce(Small(), 12, 20, 4), 12 * 20 * (32 + 32) * 4);
}

TEST(VaeWorkTest, AnUpsampleReadsTheSmallerMap) {
  ModelShape shape = Small();
  std::erase_if(shape.blocks, [](const BlockShape& block) {
    return block.name.find("up.0.") != std::string::npos;
  });
  EXPECT_EQ(DecodeBytesAtOnce(shape, 6, 10, 1), 6 * 10 * 64 + 12 * 20 * 64);
}

TEST(VaeWorkTest, CountsTheRealOne) {
  const auto entries = RealHeader(DISTORCH_GOLDEN_DIR, "sd15.f16");
  ASSERT_TRUE(entries.ok()) << entries.status();
  const TempFolder folder;
  ASSERT_TRUE(WriteSafetensors(folder.path() + "/real.safetensors", *entries).ok());
  const auto file = CheckpointFile::Open(folder.path() + "/real.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto skeleton = BuildSkeleton(**file);
  ASSERT_TRUE(skeleton.ok()) << skeleton.status();
  const ModelShape shape = ShapeOf(skeleton->vae->store());
  // Norms of 256 channels, and of 128, at the picture's size.
  EXPECT_EQ(DecodeBytesAtOnce(shape, 64, 64, 2), 512LL * 512 * (256 + 256) * 2);
  EXPECT_EQ(EncodeBytesAtOnce(shape, 512, 512, 2), 512LL * 512 * (128 + 128) * 2);
}

}  // namespace
}  // namespace distorch::models
