// The families with a UNet: variants told apart, distillations, files of the UNet alone, and files
// that are damaged.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "lib/models/unet_model.h"
#include "tests/lib/models/skeleton_of.h"
#include "tests/lib/models/unet_header.h"

namespace distorch {
namespace {

using models::GuidanceSide;
using testing::HasSubstr;

using Entries = std::vector<SafetensorsEntry>;

Entries Real(const std::string& name) {
  auto entries = RealHeader(DISTORCH_GOLDEN_DIR, name);
  EXPECT_TRUE(entries.ok()) << entries.status();
  return *std::move(entries);
}

Entries WithInputChannels(Entries entries, int64_t channels) {
  for (SafetensorsEntry& entry : entries) {
    if (absl::EndsWith(entry.name, "input_blocks.0.0.weight")) entry.shape[1] = channels;
  }
  return entries;
}

Entries With(Entries entries, const std::vector<SafetensorsEntry>& more) {
  entries.insert(entries.end(), more.begin(), more.end());
  return entries;
}

SafetensorsEntry Marker(const std::string& name) { return {name, DType::kF32, {0}, ""}; }

SafetensorsEntry Floats(const std::string& name, std::vector<int64_t> shape,
                        const std::vector<float>& values) {
  std::string data(values.size() * sizeof(float), '\0');
  std::memcpy(data.data(), values.data(), data.size());
  return {name, DType::kF32, std::move(shape), std::move(data)};
}

// The family's name, or the error.
std::string FamilyOf(const Entries& entries) {
  const TempFolder folder;
  const auto written = SkeletonOf(folder, entries);
  return written.ok() ? std::string(written->skeleton.family->name)
                      : std::string(written.status().message());
}

TEST(UNetFamiliesTest, AreToldApartByChannelsAndMarkers) {
  EXPECT_EQ(FamilyOf(WithInputChannels(Real("sd15.f16"), 9)), "sd1_inpaint");
  EXPECT_EQ(FamilyOf(WithInputChannels(Real("sd15.f16"), 8)), "sd1_instruct");
  EXPECT_EQ(FamilyOf(WithInputChannels(Real("sd21.f16"), 9)), "sd2_inpaint");
  const Entries sdxl = Real("sdxl.f16");
  EXPECT_EQ(FamilyOf(WithInputChannels(sdxl, 9)), "sdxl_inpaint");
  EXPECT_EQ(FamilyOf(WithInputChannels(sdxl, 8)), "sdxl_instruct");
  EXPECT_EQ(FamilyOf(With(sdxl, {Marker("v_pred")})), "sdxl_v");
  EXPECT_EQ(FamilyOf(With(sdxl, {Floats("edm_mean", {1}, {0}), Floats("edm_std", {1}, {1})})),
            "sdxl_edm");
  EXPECT_EQ(FamilyOf(With(sdxl, {Floats("edm_vpred.sigma_max", {}, {120})})), "sdxl_edm");
}

// Unlike a trained norm's bias at zero, one of spread 0.1 means velocity prediction; but not in an
// inpainting model.
TEST(UNetFamiliesTest, Sd2IsToldByTheSpreadOfABias) {
  constexpr char kBias[] =
      "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
  const auto with_spread = [&](float spread) {
    std::vector<float> values(320);
    for (size_t i = 0; i < values.size(); ++i) values[i] = 1 + (i % 2 == 0 ? spread : -spread);
    return With(Without(Real("sd21.f16"), kBias), {Floats(kBias, {320}, values)});
  };
  EXPECT_EQ(FamilyOf(with_spread(0.08f)), "sd2");
  EXPECT_EQ(FamilyOf(with_spread(0.1f)), "sd2_v");
  EXPECT_EQ(FamilyOf(WithInputChannels(with_spread(0.1f), 9)), "sd2_inpaint");
}

TEST(UNetFamiliesTest, TrainingIsThatOfTheMarkers) {
  const TempFolder folder;
  const Entries sdxl = UNetHeader(SmallSdxlShape());
  const auto sampling = [&](const Entries& entries) {
    const auto written = SkeletonOf(folder, entries);
    EXPECT_TRUE(written.ok()) << written.status();
    return written->skeleton.unet->sampling();
  };
  EXPECT_NEAR(sampling(sdxl).sigma_max(), 14.6146, 1e-3);
  EXPECT_NEAR(sampling(With(sdxl, {Marker("v_pred")})).sigma_max(), 14.6146, 1e-3);
  EXPECT_NEAR(sampling(With(sdxl, {Marker("v_pred"), Marker("ztsnr")})).sigma_max(), 4518.76, 1);
  const auto cos = sampling(With(sdxl, {Floats("edm_vpred.sigma_max", {}, {90}),
                                        Floats("edm_vpred.sigma_min", {1}, {0.01f})}));
  EXPECT_NEAR(cos.sigma_max(), 90, 1e-3);
  EXPECT_NEAR(cos.sigma_min(), 0.01, 1e-6);
  const auto playground =
      sampling(With(sdxl, {Floats("edm_mean", {1}, {0}), Floats("edm_std", {1}, {1})}));
  EXPECT_NEAR(playground.sigma_max(), 80, 1e-3);
}

TEST(UNetFamiliesTest, AFileOfTheUNetAloneHasOnlyAModel) {
  const TempFolder folder;
  const auto written = SkeletonOf(folder, UNetHeader(SmallSdxlShape(), ""));
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->skeleton.family->name, "sdxl");
  EXPECT_NE(written->skeleton.unet, nullptr);
  EXPECT_EQ(written->skeleton.clip, nullptr);
  EXPECT_EQ(written->skeleton.vae, nullptr);
}

TEST(UNetFamiliesTest, DistillationsFallOutOfShapes) {
  for (const UNetShape& shape :
       {Ssd1bShape(), VegaShape(), Koala700mShape(), Koala1bShape(), SmallSdxlShape()}) {
    const TempFolder folder;
    const Entries entries = UNetHeader(shape);
    const auto written = SkeletonOf(folder, entries);
    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_EQ(written->skeleton.family->name, "sdxl");
    size_t params = 0;
    for (const auto& slot : written->skeleton.unet->store().slots())
      params += slot->params().size();
    EXPECT_EQ(params, entries.size());  // every tensor of the file is used
  }
}

TEST(UNetFamiliesTest, DistillationsRun) {
  for (int64_t middle : {-1, 0, 2}) {
    UNetShape shape = SmallSdxlShape();
    shape.middle_depth = middle;
    const TempFolder folder;
    TransferMeter meter({});
    const auto written = SkeletonOf(folder, UNetHeader(shape));
    ASSERT_TRUE(written.ok()) << written.status();
    models::DiffusionModel& model = *written->skeleton.unet;
    FillAtRandom(&model, &meter);
    text::Conditioning conditioning;
    conditioning.cross_attention = at::randn({1, 77, shape.context_width});
    conditioning.pooled = at::randn({1, model.pooled_width()});
    ASSERT_TRUE(model.CheckConditioning(conditioning, 2, 6, 9).ok());
    const at::Tensor denoised = model.Denoise(
        at::randn({2, 4, 6, 9}), 2.0, model.Prepare(conditioning, GuidanceSide::kPositive, 6, 9));
    EXPECT_EQ(denoised.sizes(), at::IntArrayRef({2, 4, 6, 9}));
    EXPECT_TRUE(denoised.isfinite().all().item<bool>());
  }
}

TEST(UNetFamiliesTest, UNetsOfOtherShapesAreRefused) {
  for (int64_t channels : {1, 3, 5, 7, 13}) {
    const std::string error = FamilyOf(WithInputChannels(Real("sdxl.f16"), channels));
    EXPECT_THAT(error, HasSubstr("model.diffusion_model.input_blocks.0.0.weight has shape"));
    EXPECT_THAT(error, HasSubstr("9 (inpainting)"));
  }
  // Stable Video Diffusion's shapes.
  UNetShape video = SmallSdxlShape();
  video.in_channels = 8;
  video.class_channels = 768;
  video.input_depth = {1, 1, 1};
  EXPECT_THAT(FamilyOf(UNetHeader(video)), HasSubstr("an unknown kind of UNet"));
  UNetShape narrow = SmallSdxlShape();
  narrow.class_channels = 6 * 256;
  EXPECT_THAT(FamilyOf(UNetHeader(narrow)), HasSubstr("label_emb.0.0.weight takes 1536 channels"));
}

TEST(UNetFamiliesTest, DamagedFilesNameTheTensor) {
  const std::string missing[] = {
      "time_embed.2.bias",
      "label_emb.0.2.weight",
      "input_blocks.4.1.transformer_blocks.1.attn2.to_v.weight",
      "middle_block.1.norm.weight",
      "middle_block.0.in_layers.2.weight",
      "output_blocks.3.0.skip_connection.weight",
      "out.2.weight",
      "conditioner.embedders.1.model.transformer.resblocks.7.attn.in_proj_weight",
      "conditioner.embedders.1.model.token_embedding.weight",
      "first_stage_model.decoder.mid.attn_1.q.weight",
  };
  const Entries sdxl = Real("sdxl.f16");
  for (const std::string& name : missing) {
    const std::string error = FamilyOf(Without(sdxl, name));
    EXPECT_THAT(error, HasSubstr("missing")) << name;
  }
  EXPECT_THAT(FamilyOf(Without(sdxl, "input_blocks.8.")), HasSubstr("output_blocks"));
  EXPECT_THAT(FamilyOf(Without(sdxl, "output_blocks.8.")), HasSubstr("output_blocks"));
  EXPECT_THAT(FamilyOf(Without(sdxl, "middle_block.1.")), HasSubstr("middle_block.1"));
}

TEST(UNetFamiliesTest, WrongShapesNameTheTensor) {
  const auto with_shape = [](std::string_view name, std::vector<int64_t> shape) {
    Entries entries = Real("sdxl.f16");
    for (SafetensorsEntry& entry : entries)
      if (absl::EndsWith(entry.name, name)) entry.shape = shape;
    return FamilyOf(entries);
  };
  EXPECT_THAT(with_shape("input_blocks.5.0.emb_layers.1.weight", {640, 1281}),
              HasSubstr("input_blocks.5.0.emb_layers.1.weight has shape [640, 1281]"));
  // No multiple of three: it cannot be cut.
  EXPECT_THAT(with_shape("1.model.transformer.resblocks.3.attn.in_proj_weight", {3841, 1280}),
              HasSubstr("layers.3.self_attn.q_proj.weight is missing"));
  EXPECT_THAT(with_shape("1.model.text_projection", {1280, 7, 1}),
              HasSubstr("clip_g.transformer.text_projection"));
  EXPECT_THAT(with_shape("input_blocks.0.0.weight", {320, 4}),
              HasSubstr("input_blocks.0.0.weight has shape [320, 4]"));
}

TEST(UNetFamiliesTest, NoiseLevelsThatAreNoneAreRefused) {
  const Entries sdxl = UNetHeader(SmallSdxlShape());
  const auto error = [&](const Entries& more) { return FamilyOf(With(sdxl, more)); };
  EXPECT_THAT(error({Floats("edm_vpred.sigma_max", {}, {-1})}), HasSubstr("edm_vpred.sigma_max"));
  EXPECT_THAT(error({Floats("edm_vpred.sigma_max", {2}, {1, 2})}),
              HasSubstr("edm_vpred.sigma_max is not one number"));
  EXPECT_THAT(error({Marker("edm_vpred.sigma_max")}), HasSubstr("edm_vpred.sigma_max"));
  EXPECT_THAT(
      error({Floats("edm_vpred.sigma_max", {}, {1}), Floats("edm_vpred.sigma_min", {}, {2})}),
      HasSubstr("edm_vpred.sigma_min is not below"));
}

}  // namespace
}  // namespace distorch
