#include "lib/models/latent_format.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace distorch::models {
namespace {

at::Tensor Colours(const LatentFormat& format, const at::Tensor& model_latent) {
  at::Tensor colours = at::tensor(at::ArrayRef<float>(format.rgb_bias.data(), 3));
  for (int64_t c = 0; c < format.channels; ++c) {
    const auto& row = format.to_rgb[static_cast<size_t>(c)];
    colours = colours + model_latent[0][c].mean() * at::tensor(at::ArrayRef<float>(row.data(), 3));
  }
  return colours;
}

TEST(LatentFormatTest, TheTwoSpacesAreEachOthersInverse) {
  at::manual_seed(1);
  for (const LatentFormat* format :
       {&Sd1LatentFormat(), &SdxlLatentFormat(), &PlaygroundLatentFormat(), &Sd3LatentFormat(),
        &FluxLatentFormat()}) {
    const at::Tensor latent = at::randn({2, format->channels, 3, 5});
    EXPECT_TRUE(at::allclose(format->ToUser(format->ToModel(latent)), latent, 1e-5, 1e-5));
    if (!format->to_rgb.empty()) {
      EXPECT_EQ(format->to_rgb.size(), static_cast<size_t>(format->channels));
    }
  }
}

TEST(LatentFormatTest, ScalesAsPublished) {
  const at::Tensor ones = at::ones({1, 4, 1, 1});
  EXPECT_FLOAT_EQ(Sd1LatentFormat().ToModel(ones)[0][3].item<float>(), 0.18215f);
  EXPECT_FLOAT_EQ(SdxlLatentFormat().ToModel(ones)[0][3].item<float>(), 0.13025f);
  EXPECT_FLOAT_EQ(PlaygroundLatentFormat().ToModel(ones)[0][1].item<float>(),
                  (1 - 1.886f) * 0.5f / 5.9022f);
}

// One autoencoder, so one picture, in whichever space the latent is.
TEST(LatentFormatTest, PlaygroundsColoursAreSdxls) {
  at::manual_seed(2);
  const at::Tensor latent = at::randn({1, 4, 1, 1}) * 5;
  EXPECT_TRUE(
      at::allclose(Colours(PlaygroundLatentFormat(), PlaygroundLatentFormat().ToModel(latent)),
                   Colours(SdxlLatentFormat(), SdxlLatentFormat().ToModel(latent)), 1e-4, 1e-4));
}

}  // namespace
}  // namespace distorch::models
