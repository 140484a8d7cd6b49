// The families with a transformer: variants told apart, block lists, what the networks do with
// latents and conditionings that the golden checkpoints do not show, and files that are damaged.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "lib/models/latent_format.h"
#include "tests/lib/distorch/placement_golden.h"
#include "tests/lib/models/skeleton_of.h"
#include "tests/lib/models/transformer_header.h"

namespace distorch {
namespace {

using testing::HasSubstr;
using Entries = std::vector<SafetensorsEntry>;

constexpr char kPrefix[] = "model.diffusion_model.";
// Sums in another order.
constexpr double kTolerance = 1e-5;

// The family's name, or the error.
std::string FamilyOf(const Entries& entries) {
  const TempFolder folder;
  const auto written = SkeletonOf(folder, entries);
  return written.ok() ? std::string(written->skeleton.family->name)
                      : std::string(written.status().message());
}

SafetensorsEntry& Find(Entries& entries, const std::string& name) {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const auto& entry) { return entry.name == kPrefix + name; });
  if (found == entries.end()) ADD_FAILURE() << "no " << name;
  return found == entries.end() ? entries.front() : *found;
}

// `entries` with another shape of one tensor.
Entries WithShape(Entries entries, const std::string& name, std::vector<int64_t> shape) {
  Find(entries, name).shape = std::move(shape);
  return entries;
}

TEST(TransformerFamiliesTest, AreToldApartByNormsGuidanceAndChannels) {
  EXPECT_EQ(FamilyOf(MmDitHeader({})), "sd3");
  EXPECT_EQ(FamilyOf(MmDitHeader({.qk_norm = true})), "sd35");
  EXPECT_EQ(FamilyOf(MmDitHeader(Sd35MediumShape())), "sd35");
  EXPECT_EQ(FamilyOf(FluxHeader({})), "flux");
  EXPECT_EQ(FamilyOf(FluxHeader({.in_channels = 32})), "flux");
  EXPECT_EQ(FamilyOf(FluxHeader({.in_channels = 96})), "flux");
  EXPECT_EQ(FamilyOf(FluxHeader({.guidance = false})), "flux_schnell");
}

TEST(TransformerFamiliesTest, FilesOfTheTransformerAloneHaveNoPrefix) {
  EXPECT_EQ(FamilyOf(MmDitHeader({}, DType::kF16, "")), "sd3");
  EXPECT_EQ(FamilyOf(FluxHeader({}, DType::kF16, "")), "flux");
}

struct BlocksCase {
  std::string golden;  // a model of tests/golden/placement.json
  Entries header;
};

TEST(TransformerFamiliesTest, HaveTheReferencesBlocks) {
  const PlacementGolden golden = ReadPlacementGolden(DISTORCH_GOLDEN_DIR "/placement.json");
  const BlocksCase cases[] = {
      {"sd35_large.mmdit.f16", MmDitHeader(Sd35LargeShape())},
      {"flux_dev.dit.bf16", FluxHeader(FluxDevShape(), DType::kBF16)},
      {"flux_dev.dit.fp8", FluxHeader(FluxDevShape(), DType::kF8E4M3)},
  };
  for (const BlocksCase& c : cases) {
    SCOPED_TRACE(c.golden);
    const TempFolder folder;
    const auto written = SkeletonOf(folder, c.header);
    ASSERT_TRUE(written.ok()) << written.status();
    const std::vector<Block> actual = written->skeleton.unet->store().Blocks();
    const std::vector<Block>& expected = golden.models.at(c.golden).blocks;
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_EQ(actual[i].name, expected[i].name) << i;
      EXPECT_EQ(actual[i].bytes, expected[i].bytes) << actual[i].name;
      EXPECT_EQ(actual[i].has_bias_member, expected[i].has_bias_member) << actual[i].name;
    }
  }
}

// A small network with weights, and a conditioning that fits it.
class SmallModel {
 public:
  explicit SmallModel(const Entries& header) : meter_({*ParseDeviceId("cpu")}) {
    auto written = SkeletonOf(folder_, header);
    EXPECT_TRUE(written.ok()) << written.status();
    written_ = *std::move(written);
    FillAtRandom(written_.skeleton.unet.get(), &meter_);
    conditioning.cross_attention = at::randn({1, 5, model().context_width()});
    conditioning.pooled = at::randn({1, model().pooled_width()});
  }

  const models::DiffusionModel& model() const { return *written_.skeleton.unet; }
  at::Tensor Denoise(const at::Tensor& x) const { return model().Denoise(x, 0.7, conditioning); }
  absl::Status Check(int64_t height, int64_t width) const {
    return model().CheckConditioning(conditioning, 1, height, width);
  }

  text::Conditioning conditioning;

 private:
  const TempFolder folder_;
  TransferMeter meter_;
  WrittenSkeleton written_;
};

void ExpectClose(const at::Tensor& actual, const at::Tensor& expected) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const double error = (actual - expected).abs().max().item<double>();
  EXPECT_LE(error, kTolerance * expected.abs().max().item<double>());
}

class EveryTransformerTest : public testing::TestWithParam<const char*> {
 protected:
  static Entries Header() {
    const std::string name = GetParam();
    if (name == "mmdit") return MmDitHeader({});
    if (name == "mmditx") return MmDitHeader({.qk_norm = true, .dual_blocks = 1});
    if (name == "flux") return FluxHeader({});
    return FluxHeader({.guidance = false});
  }
};

// The reference continues an odd latent around its edge.
TEST_P(EveryTransformerTest, OddLatentsAreContinuedAroundTheEdge) {
  const SmallModel small(Header());
  const at::Tensor x = at::randn({1, 16, 7, 9});
  at::Tensor even = at::cat({x, x.narrow(2, 0, 1)}, 2);
  even = at::cat({even, even.narrow(3, 0, 1)}, 3);
  ExpectClose(small.Denoise(x), small.Denoise(even).narrow(2, 0, 7).narrow(3, 0, 9));
}

TEST_P(EveryTransformerTest, ItemsOfABatchDoNotMix) {
  SmallModel small(Header());
  const at::Tensor x = at::randn({2, 16, 4, 6});
  small.conditioning.cross_attention = at::randn({2, 5, small.model().context_width()});
  small.conditioning.pooled = at::randn({2, small.model().pooled_width()});
  const at::Tensor together = small.Denoise(x);
  const text::Conditioning both = small.conditioning;
  for (int64_t i = 0; i < 2; ++i) {
    small.conditioning.cross_attention = both.cross_attention.narrow(0, i, 1);
    small.conditioning.pooled = both.pooled.narrow(0, i, 1);
    ExpectClose(together.narrow(0, i, 1), small.Denoise(x.narrow(0, i, 1)));
  }
}

TEST_P(EveryTransformerTest, RefusesAConditioningThatDoesNotFit) {
  SmallModel small(Header());
  ASSERT_TRUE(small.Check(4, 4).ok());
  const text::Conditioning good = small.conditioning;
  small.conditioning.pooled = at::Tensor();
  EXPECT_THAT(std::string(small.Check(4, 4).message()), HasSubstr("pooled: shape is absent"));
  small.conditioning.pooled = at::zeros({1, 47});
  EXPECT_THAT(std::string(small.Check(4, 4).message()), HasSubstr("[1, 47], expected [batch, 48]"));
  small.conditioning.pooled = at::zeros({3, 48});
  EXPECT_THAT(std::string(small.Check(4, 4).message()), HasSubstr("pooled: batch is 3"));
  small.conditioning = good;
  small.conditioning.cross_attention = at::zeros({1, 5, 95});
  EXPECT_THAT(std::string(small.Check(4, 4).message()), HasSubstr("expected [batch, tokens, 96]"));
  small.conditioning = good;
  small.conditioning.concat = at::zeros({1, 16, 4, 4});
  EXPECT_THAT(std::string(small.Check(4, 4).message()), HasSubstr("takes none"));
}

INSTANTIATE_TEST_SUITE_P(All, EveryTransformerTest,
                         testing::Values("mmdit", "mmditx", "flux", "schnell"),
                         [](const auto& info) { return std::string(info.param); });

TEST(MmDitTest, RefusesLatentsBeyondItsPositions) {
  const SmallModel small(MmDitHeader({.position_side = 8}));
  EXPECT_TRUE(small.Check(16, 15).ok());
  const absl::Status status = small.Check(4, 17);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("positions for 16 x 16"));
}

TEST(FluxTest, GuidanceIsThreeAndAHalfUnlessGiven) {
  SmallModel small(FluxHeader({}));
  const at::Tensor x = at::randn({1, 16, 4, 4});
  const at::Tensor by_default = small.Denoise(x);
  small.conditioning.guidance = 3.5;
  EXPECT_TRUE(at::equal(small.Denoise(x), by_default));
  small.conditioning.guidance = 7.5;
  EXPECT_FALSE(at::equal(small.Denoise(x), by_default));
}

TEST(FluxTest, SchnellTakesNoGuidance) {
  SmallModel small(FluxHeader({.guidance = false}));
  const at::Tensor x = at::randn({1, 16, 4, 4});
  const at::Tensor without = small.Denoise(x);
  small.conditioning.guidance = 7.5;
  EXPECT_TRUE(at::equal(small.Denoise(x), without));
}

// Without a picture, the extra channels hold the latent of zeros, and a mask of ones.
TEST(FluxTest, ExtraChannelsDefaultToABlankPicture) {
  SmallModel small(FluxHeader({.in_channels = 96}));
  ASSERT_EQ(small.model().concat_channels(), 80);
  const at::Tensor x = at::randn({1, 16, 4, 6});
  const at::Tensor by_default = small.Denoise(x);
  small.conditioning.concat = at::cat(
      {models::FluxLatentFormat().ToModel(at::zeros({1, 16, 4, 6})), at::ones({1, 64, 4, 6})}, 1);
  ASSERT_TRUE(small.Check(4, 6).ok());
  ExpectClose(small.Denoise(x), by_default);
}

struct BadCase {
  std::string what;
  Entries entries;
  std::string message;  // is contained in the error's
};

TEST(TransformerFamiliesTest, NameTheTensorThatDoesNotFit) {
  const Entries sd3 = MmDitHeader({}), flux = FluxHeader({});
  const BadCase cases[] = {
      {"width of no heads", WithShape(sd3, "x_embedder.proj.weight", {0, 16, 2, 2}),
       "x_embedder.proj.weight has shape [0, 16, 2, 2]"},
      {"part of a head", WithShape(sd3, "x_embedder.proj.weight", {100, 16, 2, 2}),
       "x_embedder.proj.weight is 100 wide, not a multiple of 64"},
      {"more heads than blocks", WithShape(sd3, "x_embedder.proj.weight", {192, 16, 2, 2}),
       "joint_blocks: 2 blocks, expected 3"},
      {"absurd depth", WithShape(sd3, "x_embedder.proj.weight", {1 << 18, 16, 2, 2}),
       "joint_blocks: 2 blocks, expected 4096"},
      {"beyond any size", WithShape(sd3, "x_embedder.proj.weight", {int64_t{1} << 40, 1, 1, 1}),
       "x_embedder.proj.weight has shape"},
      {"patches of three", WithShape(sd3, "x_embedder.proj.weight", {128, 16, 3, 3}),
       "x_embedder.proj.weight has patches of 3"},
      {"latents of four channels", WithShape(sd3, "x_embedder.proj.weight", {128, 4, 2, 2}),
       "x_embedder.proj.weight takes 4"},
      {"another rank", WithShape(sd3, "x_embedder.proj.weight", {128, 64}),
       "x_embedder.proj.weight has shape [128, 64], expected 4 dimensions"},
      {"oblong positions", WithShape(sd3, "pos_embed", {1, 65, 128}),
       "pos_embed covers 65 patches, which are no square"},
      {"narrow positions", WithShape(sd3, "pos_embed", {1, 64, 64}),
       "pos_embed has shape [1, 64, 64], expected [1, 64, 128]"},
      {"no positions", Without(sd3, "pos_embed"), "pos_embed is missing"},
      {"no pooled text", Without(sd3, "y_embedder"), "y_embedder.mlp.0.weight is missing"},
      {"a gap", Without(MmDitHeader({.width = 256}), "joint_blocks.2."),
       "joint_blocks.3.context_block.adaLN_modulation.1.bias is there, but no "
       "diffusion_model.joint_blocks.2"},
      {"half a norm", Without(MmDitHeader({.qk_norm = true}), "1.x_block.attn.ln_k"),
       "joint_blocks.1.x_block.attn.ln_k.weight is missing"},
      {"a bias is missing", Without(sd3, "final_layer.linear.bias"),
       "final_layer.linear.bias is missing"},
      {"part of a head", WithShape(flux, "img_in.weight", {192, 64}),
       "img_in.weight is 192 wide, not a multiple of 128"},
      {"part of a patch", WithShape(flux, "img_in.weight", {256, 66}),
       "img_in.weight is 66 wide, not a multiple of 4"},
      {"channels that nobody published", FluxHeader({.in_channels = 20}),
       "img_in.weight takes 20 channels"},
      {"fewer channels than a latent has", FluxHeader({.in_channels = 8}),
       "img_in.weight takes 8 channels"},
      {"another latent", WithShape(flux, "final_layer.linear.weight", {16, 256}),
       "final_layer.linear.weight yields 4 channels"},
      {"a gap", Without(FluxHeader({.single_blocks = 4}), "single_blocks.1."), "single_blocks.2."},
      {"no single blocks", Without(flux, "single_blocks."), "single_blocks.*: 0 blocks"},
      {"half a guidance", Without(flux, "guidance_in.out_layer"),
       "guidance_in.out_layer.weight is missing"},
      {"short norm", WithShape(flux, "single_blocks.0.norm.query_norm.scale", {64}),
       "single_blocks.0.norm.query_norm.scale has shape [64], expected [128]"},
  };
  for (const BadCase& c : cases) {
    SCOPED_TRACE(c.what);
    const TempFolder folder;
    const auto written = SkeletonOf(folder, c.entries);
    ASSERT_FALSE(written.ok());
    EXPECT_EQ(written.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(written.status().message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace distorch
