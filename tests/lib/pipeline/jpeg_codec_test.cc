#include "lib/pipeline/jpeg_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/lib/pipeline/image_samples.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;

// What libjpeg's releases differ by.
constexpr int kTolerance = 2;

std::string Sample(const std::string& name) { return ReadSample("jpeg_fuzz/" + name); }

std::string MessageOf(std::string_view bytes) {
  const auto decoded = DecodeJpeg(bytes);
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument) << decoded.status();
  return std::string(decoded.status().message());
}

// The samples are of 24 x 16 pixels; the values are Pillow's.
void ExpectPixels(const std::string& name, const std::vector<int>& first,
                  const std::vector<int>& last) {
  const auto decoded = DecodeJpeg(Sample(name));
  ASSERT_TRUE(decoded.ok()) << name << ": " << decoded.status();
  EXPECT_EQ(decoded->image.channels, 3);
  ExpectPixel(decoded->image, 7, 5, first, kTolerance, name);
  ExpectPixel(decoded->image, 23, 15, last, kTolerance, name);
}

TEST(JpegCodecTest, BaselineProgressiveGreyAndCmyk) {
  ExpectPixels("baseline", {70, 76, 190}, {231, 221, 64});
  ExpectPixels("progressive", {70, 76, 190}, {231, 221, 64});
  ExpectPixels("grey", {87, 87, 87}, {206, 206, 206});
  ExpectPixels("cmyk", {70, 75, 190}, {230, 225, 50});
  ExpectPixels("ycck", {98, 211, 255}, {134, 3, 0});
}

TEST(JpegCodecTest, SurvivesARoundTripNearly) {
  for (int channels : {3, 4}) {
    const Image8 image = SmoothImage(37, 21, channels);
    const auto jpeg = EncodeJpeg(image, "");
    ASSERT_TRUE(jpeg.ok()) << jpeg.status();
    const auto decoded = DecodeJpeg(*jpeg);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    ASSERT_EQ(decoded->image.width, 37);
    ASSERT_EQ(decoded->image.height, 21);
    EXPECT_LE(LargestDifference(image, decoded->image), 6);
    EXPECT_EQ(decoded->exif, "");
  }
}

TEST(JpegCodecTest, ALargeFileIsWrittenWhole) {
  const Image8 image = SmoothImage(1999, 1111, 3);
  const auto jpeg = EncodeJpeg(image, "");
  ASSERT_TRUE(jpeg.ok()) << jpeg.status();
  EXPECT_GT(jpeg->size(), 64u << 10);
  const auto decoded = DecodeJpeg(*jpeg);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_LE(LargestDifference(image, decoded->image), 6);
}

TEST(JpegCodecTest, ExifSurvives) {
  const std::string exif = "MM\0*anything", longest(kMaxJpegExifBytes, 'x');
  for (const std::string& written : {exif, longest}) {
    const auto jpeg = EncodeJpeg(SmoothImage(3, 2, 3), written);
    ASSERT_TRUE(jpeg.ok()) << jpeg.status();
    EXPECT_EQ(DecodeJpeg(*jpeg)->exif, written);
  }
  EXPECT_EQ(EncodeJpeg(SmoothImage(3, 2, 3), longest + "x").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(JpegCodecTest, EncodeRefusesWhatIsNoImage) {
  EXPECT_EQ(EncodeJpeg(Image8{}, "").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(EncodeJpeg(SmoothImage(65501, 1, 3), "").ok());  // over the format's limit
}

TEST(MalformedJpeg, TruncatedAnywhere) {
  for (const char* name : {"baseline", "progressive", "cmyk"}) {
    const std::string jpeg = Sample(name);
    for (size_t size = 0; size + 2 < jpeg.size(); size += 13)
      MessageOf(std::string_view(jpeg).substr(0, size));
  }
  EXPECT_THAT(MessageOf(Sample("truncated")), HasSubstr("not a readable JPEG"));
}

TEST(MalformedJpeg, NotAJpeg) { EXPECT_THAT(MessageOf("GIF89a, honestly"), HasSubstr("JPEG")); }

TEST(MalformedJpeg, HugeDimensions) {
  EXPECT_THAT(MessageOf(Sample("huge")), HasSubstr("65000 x 65000 pixels; at most"));
  // Within the limit, but more than so few bytes can hold: no memory is taken for it.
  EXPECT_THAT(DecodeJpeg(Sample("huge"), int64_t{1} << 40).status().message(),
              HasSubstr("cannot hold"));
}

TEST(MalformedJpeg, MoreThanTheCallersLimit) {
  EXPECT_TRUE(DecodeJpeg(Sample("baseline"), 24 * 16).ok());
  EXPECT_THAT(DecodeJpeg(Sample("baseline"), 24 * 16 - 1).status().message(),
              HasSubstr("24 x 16 pixels; at most 383"));
  EXPECT_FALSE(DecodeJpeg(Sample("baseline"), -1).ok());
}

TEST(MalformedJpeg, ZeroHeight) { MessageOf(Sample("zero")); }

TEST(MalformedJpeg, CorruptDataIsNoGreyPicture) {
  const std::string jpeg = Sample("baseline");
  std::string broken = jpeg;
  broken.insert(broken.size() - 40, "\xFF\xD9");  // the end, in the middle
  MessageOf(broken);
}

TEST(MalformedJpeg, EndlessScansAreRefused) {
  const std::string jpeg = Sample("progressive");
  // The second scan's bytes, again and again.
  const size_t scan = jpeg.find("\xFF\xDA", jpeg.find("\xFF\xDA") + 2);
  const size_t next = jpeg.find("\xFF\xC4", scan);
  ASSERT_NE(next, std::string::npos);
  std::string bomb = jpeg.substr(0, next);
  for (int i = 0; i < 1000; ++i) bomb += jpeg.substr(scan, next - scan);
  MessageOf(bomb + jpeg.substr(next));
}

}  // namespace
}  // namespace distorch
