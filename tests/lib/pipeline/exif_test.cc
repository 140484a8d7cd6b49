#include "lib/pipeline/exif.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Little16(int value) {
  return {static_cast<char>(value & 0xFF), static_cast<char>(value >> 8)};
}

// One directory entry of type SHORT, little-endian.
std::string Orientation(int value, int tag = 0x0112, int type = 3) {
  return absl::StrCat("II*", std::string("\0\x08\0\0\0\x01\0", 7), Little16(tag), Little16(type),
                      std::string("\x01\0\0\0", 4), Little16(value), std::string(6, '\0'));
}

TEST(ExifTest, ReadsTheOrientationInEitherByteOrder) {
  for (int value = 1; value <= 8; ++value) EXPECT_EQ(ExifOrientation(Orientation(value)), value);
  EXPECT_EQ(
      ExifOrientation(std::string("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0", 22)),
      6);
}

TEST(ExifTest, WhatIsMalformedIsUpright) {
  EXPECT_EQ(ExifOrientation(""), 1);
  EXPECT_EQ(ExifOrientation("MM"), 1);
  EXPECT_EQ(ExifOrientation("XX*\0\0\0\0\x08"), 1);
  EXPECT_EQ(ExifOrientation(Orientation(0)), 1);
  EXPECT_EQ(ExifOrientation(Orientation(9)), 1);
  EXPECT_EQ(ExifOrientation(Orientation(6, 0x0113)), 1);
  EXPECT_EQ(ExifOrientation(Orientation(6, 0x0112, 4)), 1);
  const std::string whole = Orientation(6);
  for (size_t size = 0; size < 20; ++size) EXPECT_EQ(ExifOrientation(whole.substr(0, size)), 1);
  std::string far = whole;
  far.replace(4, 4, "\xFF\xFF\xFF\xFF");
  EXPECT_EQ(ExifOrientation(far), 1);
}

// One letter a pixel.
Image8 Letters(int width, int height, const std::string& letters) {
  Image8 image{.width = width, .height = height, .channels = 3, .pixels = {}};
  for (char letter : letters) image.pixels.insert(image.pixels.end(), 3, letter);
  return image;
}

std::string LettersOf(const Image8& image) {
  std::string letters = absl::StrCat(image.width, "x", image.height, " ");
  for (size_t i = 0; i < image.pixels.size(); i += 3)
    letters.push_back(static_cast<char>(image.pixels[i]));
  return letters;
}

TEST(ExifTest, TurnsAndMirrorsAsViewersDo) {
  // abc
  // def
  const char* expected[] = {"3x2 abcdef", "3x2 cbafed", "3x2 fedcba", "3x2 defabc",
                            "2x3 adbecf", "2x3 daebfc", "2x3 fcebda", "2x3 cfbead"};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    EXPECT_EQ(LettersOf(Oriented(Letters(3, 2, "abcdef"), orientation)), expected[orientation - 1])
        << orientation;
  }
}

TEST(ExifTest, TextIsWhereToolsLookForIt) {
  const std::string exif =
      ExifFromText({{"parameters", "caf\u00E9 \U0001F600"}, {"prompt", "{}"}}, 1000);
  EXPECT_EQ(exif.substr(0, 8), std::string("MM\0*\0\0\0\x08", 8));
  EXPECT_THAT(exif, HasSubstr(std::string("prompt:{}\0", 10)));
  EXPECT_THAT(exif, HasSubstr(std::string("UNICODE\0\0c\0a\0f\0\xE9\0 \xD8\x3D\xDE\x00", 22)));
  EXPECT_EQ(ExifOrientation(exif), 1);
}

TEST(ExifTest, ThePromptIsLeftOutFirst) {
  const std::string graph(500, 'g');
  EXPECT_THAT(ExifFromText({{"parameters", "a"}, {"prompt", graph}}, 1000), HasSubstr(graph));
  const std::string small = ExifFromText({{"parameters", "a"}, {"prompt", graph}}, 500);
  EXPECT_THAT(small, HasSubstr("UNICODE"));
  EXPECT_THAT(small, Not(HasSubstr("prompt")));
  EXPECT_EQ(ExifFromText({{"parameters", graph}}, 500), "");
  EXPECT_EQ(ExifFromText({{"prompt", graph}}, 500), "");
  EXPECT_EQ(ExifFromText({}, 500), "");
  EXPECT_EQ(ExifFromText({{"other", "x"}}, 500), "");
}

}  // namespace
}  // namespace distorch
