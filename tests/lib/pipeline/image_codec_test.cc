#include "lib/pipeline/image_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/lib/pipeline/image_samples.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ImageCodecTest, KnowsFormatsByTheirNames) {
  EXPECT_EQ(ImageFormatByName(""), ImageFormat::kPng);
  EXPECT_EQ(ImageFormatByName("png"), ImageFormat::kPng);
  EXPECT_EQ(ImageFormatByName("jpeg"), ImageFormat::kJpeg);
  EXPECT_EQ(ImageFormatByName("jpg"), ImageFormat::kJpeg);
  EXPECT_EQ(ImageFormatByName("webp"), ImageFormat::kWebp);
  EXPECT_EQ(ImageFormatByName("PNG"), std::nullopt);
  EXPECT_EQ(ImageFormatByName("bmp"), std::nullopt);
}

TEST(ImageCodecTest, EveryFormatDecodesWithoutBeingNamed) {
  const Image8 image = SmoothImage(40, 30, 3);
  const ImageText text = {{"parameters", "a cat"}, {"prompt", "{}"}};
  for (const auto& [format, begin] :
       {std::pair{ImageFormat::kPng, "\x89PNG"}, std::pair{ImageFormat::kJpeg, "\xFF\xD8\xFF"},
        std::pair{ImageFormat::kWebp, "RIFF"}}) {
    const auto bytes = EncodeImage(image, format, text);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_THAT(*bytes, StartsWith(begin));
    EXPECT_THAT(*bytes, HasSubstr(format == ImageFormat::kPng
                                      ? "a cat"
                                      : std::string("UNICODE\0\0a\0 \0c\0a\0t", 18)));
    const auto decoded = DecodeImage(*bytes);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_LE(LargestDifference(image, *decoded), 20);
  }
}

TEST(ImageCodecTest, TextTooLongForJpegIsLeftOut) {
  const auto bytes = EncodeImage(SmoothImage(8, 8, 3), ImageFormat::kJpeg,
                                 {{"parameters", std::string(1 << 20, 'x')}});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_LT(bytes->size(), 2000u);
}

// The values are Pillow's, after its exif_transpose.
TEST(ImageCodecTest, AppliesTheOrientation) {
  const auto webp = DecodeImage(ReadSample("webp_fuzz/orientation6"));
  ASSERT_TRUE(webp.ok()) << webp.status();
  ASSERT_EQ(webp->width, 16);
  ASSERT_EQ(webp->height, 24);
  ExpectPixel(*webp, 0, 0, {0, 225, 165}, 0, "webp");
  ExpectPixel(*webp, 7, 5, {50, 120, 182}, 0, "webp");
  ExpectPixel(*webp, 15, 23, {230, 0, 140}, 0, "webp");
  const auto jpeg = DecodeImage(ReadSample("jpeg_fuzz/orientation6"));
  ASSERT_TRUE(jpeg.ok()) << jpeg.status();
  ASSERT_EQ(jpeg->height, 24);
  ExpectPixel(*jpeg, 7, 5, {50, 120, 180}, 2, "jpeg");
}

TEST(ImageCodecTest, AppliesTheOrientationOfAPng) {
  std::string png = EncodeImage(SmoothImage(3, 2, 3), ImageFormat::kPng, {}).value();
  const std::string chunk =
      std::string("eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0", 30);
  const uint32_t crc = crc32(0, reinterpret_cast<const Bytef*>(chunk.data()), chunk.size());
  const char ending[] = {static_cast<char>(crc >> 24), static_cast<char>(crc >> 16),
                         static_cast<char>(crc >> 8), static_cast<char>(crc)};
  constexpr size_t kAfterHeader = 8 + 25;
  png.insert(kAfterHeader, absl::StrCat(std::string("\0\0\0\x1A", 4), chunk,
                                        std::string_view(ending, sizeof(ending))));
  const auto decoded = DecodeImage(png);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->width, 2);
  EXPECT_EQ(decoded->height, 3);
}

TEST(ImageCodecTest, SaysWhatIsAllowedForAnythingElse) {
  for (const std::string& bytes :
       {std::string(), std::string("GIF89a"), std::string("RIFF\0\0\0\0WAVE", 12),
        std::string("\xFF\xD8"), std::string(100, '\0')}) {
    const auto decoded = DecodeImage(bytes);
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(decoded.status().message()), HasSubstr("PNG, JPEG, WebP"));
  }
}

TEST(ImageCodecTest, LimitsEveryFormat) {
  for (const char* name : {"png_fuzz/rgb", "jpeg_fuzz/baseline", "webp_fuzz/lossy"}) {
    EXPECT_TRUE(DecodeImage(ReadSample(name)).ok()) << name;
    EXPECT_THAT(std::string(DecodeImage(ReadSample(name), 1).status().message()),
                HasSubstr("at most 1 are allowed"))
        << name;
  }
}

}  // namespace
}  // namespace distorch
