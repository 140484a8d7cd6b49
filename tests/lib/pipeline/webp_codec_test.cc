#include "lib/pipeline/webp_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/lib/pipeline/image_samples.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;

std::string Sample(const std::string& name) { return ReadSample("webp_fuzz/" + name); }

std::string MessageOf(std::string_view bytes) {
  const auto decoded = DecodeWebp(bytes);
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument) << decoded.status();
  return std::string(decoded.status().message());
}

// The samples are of 24 x 16 pixels; the values are Pillow's.
void ExpectPixels(const std::string& name, int tolerance, const std::vector<int>& first,
                  const std::vector<int>& last) {
  const auto decoded = DecodeWebp(Sample(name));
  ASSERT_TRUE(decoded.ok()) << name << ": " << decoded.status();
  ExpectPixel(decoded->image, 7, 5, first, tolerance, name);
  ExpectPixel(decoded->image, 23, 15, last, tolerance, name);
}

TEST(WebpCodecTest, LossyLosslessAndAlpha) {
  ExpectPixels("lossless", 0, {70, 75, 190}, {230, 225, 50});
  ExpectPixels("alpha", 0, {70, 75, 190, 70}, {230, 225, 50, 230});
  ExpectPixels("lossy", 2, {68, 72, 185}, {233, 223, 60});
  ExpectPixels("lossy_alpha", 2, {71, 72, 188, 70}, {226, 223, 60, 230});
}

TEST(WebpCodecTest, SurvivesARoundTripNearly) {
  for (int channels : {3, 4}) {
    const Image8 image = SmoothImage(37, 21, channels);
    const auto webp = EncodeWebp(image, "");
    ASSERT_TRUE(webp.ok()) << webp.status();
    const auto decoded = DecodeWebp(*webp);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_LE(LargestDifference(image, decoded->image), 20);  // its chroma is halved
    EXPECT_EQ(decoded->exif, "");
  }
}

TEST(WebpCodecTest, ExifSurvives) {
  for (const std::string& exif : {std::string("MM\0*odd", 7), std::string(1 << 20, 'x')}) {
    const auto webp = EncodeWebp(SmoothImage(3, 2, 3), exif);
    ASSERT_TRUE(webp.ok()) << webp.status();
    EXPECT_EQ(DecodeWebp(*webp)->exif, exif);
  }
}

TEST(WebpCodecTest, EncodeRefusesWhatIsNoImage) {
  EXPECT_EQ(EncodeWebp(Image8{}, "").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(EncodeWebp(SmoothImage(16384, 1, 3), "").status().message(),
              HasSubstr("at most 16383"));
}

TEST(MalformedWebp, TruncatedAnywhere) {
  for (const char* name : {"lossy", "lossless", "alpha"}) {
    const std::string webp = Sample(name);
    for (size_t size = 0; size < webp.size() - 1; size += 3)
      MessageOf(std::string_view(webp).substr(0, size));
  }
  EXPECT_THAT(MessageOf(Sample("truncated")), HasSubstr("ends early"));
}

TEST(MalformedWebp, NotAWebp) {
  EXPECT_THAT(MessageOf("RIFF\x10\0\0\0WAVEfmt ......"), HasSubstr("WebP"));
}

TEST(MalformedWebp, AnAnimation) {
  EXPECT_THAT(MessageOf(Sample("animation")), HasSubstr("animation"));
}

TEST(MalformedWebp, HugeDimensions) {
  EXPECT_THAT(MessageOf(Sample("huge")), HasSubstr("16383 x 16383 pixels; at most"));
}

TEST(MalformedWebp, MoreThanTheCallersLimit) {
  EXPECT_TRUE(DecodeWebp(Sample("lossless"), 24 * 16).ok());
  EXPECT_THAT(DecodeWebp(Sample("lossless"), 24 * 16 - 1).status().message(),
              HasSubstr("24 x 16 pixels; at most 383"));
  EXPECT_FALSE(DecodeWebp(Sample("lossless"), -1).ok());
}

}  // namespace
}  // namespace distorch
