// Every real-size checkpoint of tests/golden/real_headers.json is recognised, and its components'
// blocks are the reference's. Adding a family adds a line.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/lib/distorch/placement_golden.h"
#include "tests/lib/models/skeleton_of.h"

namespace distorch {
namespace {

struct RealCase {
  std::string header, family;
  // Models of tests/golden/placement.json; empty: there is none for this file.
  std::string unet, clip;
};

void PrintTo(const RealCase& real, std::ostream* out) { *out << real.header; }

const RealCase kCases[] = {
    {"sd15.f16", "sd1", "sd15.unet.f16", "sd15.clip.f16"},
    {"sd21.f16", "sd2", "sd21.unet.f16", "sd21.clip.f16"},
    {"sdxl.f16", "sdxl", "sdxl.unet.f16", "sdxl.clip.f16"},
    {"sd3_medium_incl_clips_t5.f16", "sd3", "sd3_medium.mmdit.f16", "sd3.clip_lg_t5.f16"},
    {"flux_dev.fp8", "flux", "flux_dev.dit.fp8", ""},
};

const PlacementGolden& Golden() {
  static const auto* const golden =
      new PlacementGolden(ReadPlacementGolden(DISTORCH_GOLDEN_DIR "/placement.json"));
  return *golden;
}

void ExpectBlocks(const nn::Component& component, const std::string& model) {
  const std::vector<Block> actual = component.store().Blocks();
  const std::vector<Block>& expected = Golden().models.at(model).blocks;
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(actual[i].name, expected[i].name) << i;
    EXPECT_EQ(actual[i].bytes, expected[i].bytes) << actual[i].name;
    EXPECT_EQ(actual[i].has_bias_member, expected[i].has_bias_member) << actual[i].name;
  }
}

class RealHeaderTest : public testing::TestWithParam<RealCase> {};

TEST_P(RealHeaderTest, HasTheReferencesBlocks) {
  const RealCase& real = GetParam();
  const auto entries = RealHeader(DISTORCH_GOLDEN_DIR, real.header);
  ASSERT_TRUE(entries.ok()) << entries.status();
  const TempFolder folder;
  const auto written = SkeletonOf(folder, *entries);
  ASSERT_TRUE(written.ok()) << written.status();
  const models::Skeleton& skeleton = written->skeleton;
  EXPECT_EQ(skeleton.family->name, real.family);
  ASSERT_NE(skeleton.unet, nullptr);
  ASSERT_NE(skeleton.clip, nullptr);
  ASSERT_NE(skeleton.vae, nullptr);
  ExpectBlocks(*skeleton.unet, real.unet);
  if (!real.clip.empty()) ExpectBlocks(*skeleton.clip, real.clip);
}

INSTANTIATE_TEST_SUITE_P(All, RealHeaderTest, testing::ValuesIn(kCases), [](const auto& info) {
  std::string name = info.param.header;
  for (char& c : name)
    if (c == '.') c = '_';
  return name;
});

}  // namespace
}  // namespace distorch
