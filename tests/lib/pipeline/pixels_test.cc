#include "lib/pipeline/pixels.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "lib/models/latent_format.h"

namespace distorch::pipeline {
namespace {

// The largest difference of a colour channel between two pixels.
int Difference(const Image8& image, int64_t a, int64_t b) {
  int largest = 0;
  for (int64_t c = 0; c < 3; ++c) {
    const auto at = [&](int64_t pixel) {
      return static_cast<int>(image.pixels[static_cast<size_t>(3 * pixel + c)]);
    };
    largest = std::max(largest, std::abs(at(a) - at(b)));
  }
  return largest;
}

TEST(LatentPreviewTest, FalseColoursTellPartsOfThePictureApart) {
  const models::LatentFormat& format = models::FluxLatentFormat();
  at::manual_seed(3);
  at::Tensor latent = at::randn({1, format.channels, 8, 8}) * 0.05;
  latent.slice(3, 4) += at::randn({1, format.channels, 1, 1});  // the right half is another thing
  const Image8 image = LatentPreview(latent, format);
  ASSERT_EQ(image.width, 8);
  ASSERT_EQ(image.height, 8);
  EXPECT_GT(Difference(image, 0, 7), 128);
  EXPECT_EQ(image.pixels, LatentPreview(latent, format).pixels);
}

TEST(LatentPreviewTest, AFlatLatentIsFlat) {
  const models::LatentFormat& format = models::FluxLatentFormat();
  const Image8 image = LatentPreview(at::ones({1, format.channels, 4, 6}), format);
  EXPECT_EQ(Difference(image, 0, 23), 0);
}

TEST(LatentPreviewTest, PublishedColoursAreUsedWhereThereAreAny) {
  for (const models::LatentFormat* format :
       {&models::Sd1LatentFormat(), &models::SdxlLatentFormat(), &models::PlaygroundLatentFormat(),
        &models::Sd3LatentFormat()}) {
    ASSERT_FALSE(format->to_rgb.empty());
    const Image8 image = LatentPreview(at::zeros({2, format->channels, 3, 5}), *format);
    EXPECT_EQ(image.width, 5);
    EXPECT_EQ(image.height, 3);
    EXPECT_EQ(Difference(image, 0, 14), 0);
    for (size_t c = 0; c < 3; ++c) {
      EXPECT_NEAR(image.pixels[c], 127.5 * (1 + format->rgb_bias[c]), 1.5);
    }
  }
}

}  // namespace
}  // namespace distorch::pipeline
