#include "lib/pipeline/png_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <functional>
#include <string>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr std::string_view kSignature("\x89PNG\r\n\x1A\n", 8);

// ---- A PNG writer that also writes what no encoder would ----

std::string BigEndian32(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

std::string Chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  const uint32_t crc = crc32(0, reinterpret_cast<const Bytef*>(body.data()), body.size());
  return BigEndian32(data.size()) + body + BigEndian32(crc);
}

std::string Deflate(const std::string& data) {
  uLongf size = compressBound(data.size());
  std::string result(size, '\0');
  EXPECT_EQ(compress(reinterpret_cast<Bytef*>(result.data()), &size,
                     reinterpret_cast<const Bytef*>(data.data()), data.size()),
            Z_OK);
  result.resize(size);
  return result;
}

std::string Header(uint32_t width, uint32_t height, int depth, int color_type, int interlace = 0) {
  return Chunk("IHDR", BigEndian32(width) + BigEndian32(height) +
                           std::string{static_cast<char>(depth), static_cast<char>(color_type), 0,
                                       0, static_cast<char>(interlace)});
}

std::string Png(const std::string& header, const std::string& scanlines,
                const std::string& before_data = "") {
  return absl::StrCat(kSignature, header, before_data, Chunk("IDAT", Deflate(scanlines)),
                      Chunk("IEND", ""));
}

using PixelFunction = std::function<std::string(int x, int y)>;

std::string Scanlines(int width, int height, const PixelFunction& pixel, int x0 = 0, int y0 = 0,
                      int dx = 1, int dy = 1) {
  std::string lines;
  if (x0 >= width) return lines;
  for (int y = y0; y < height; y += dy) {
    lines.push_back(0);  // no filter
    for (int x = x0; x < width; x += dx) lines += pixel(x, y);
  }
  return lines;
}

std::string Adam7(int width, int height, const PixelFunction& pixel) {
  constexpr int kPasses[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                 {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
  std::string lines;
  for (const auto& [x0, y0, dx, dy] : kPasses) {
    lines += Scanlines(width, height, pixel, x0, y0, dx, dy);
  }
  return lines;
}

Image8 Gradient(int width, int height, int channels) {
  Image8 image{.width = width, .height = height, .channels = channels, .pixels = {}};
  for (int i = 0; i < width * height * channels; ++i) image.pixels.push_back(i * 7 % 256);
  return image;
}

std::string MessageOf(std::string_view bytes) {
  const auto decoded = DecodePng(bytes);
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument) << decoded.status();
  return std::string(decoded.status().message());
}

// ---- Round trips ----

TEST(PngCodecTest, PixelsAndTextSurvive) {
  const ImageText text = {{"parameters", "a cat\nNegative prompt: dog, \"x\""},
                          {"Latin", "caf\u00E9 \u00FF"},
                          {"Other", "\u65E5\u672C \U0001F600\nline"},
                          {"Empty", ""}};
  for (int channels : {3, 4}) {
    for (int compression : {0, 4, 9}) {
      const Image8 image = Gradient(37, 11, channels);
      const auto png = EncodePng(image, text, compression);
      ASSERT_TRUE(png.ok()) << png.status();
      const auto decoded = DecodePng(*png);
      ASSERT_TRUE(decoded.ok()) << decoded.status();
      EXPECT_EQ(decoded->image.width, 37);
      EXPECT_EQ(decoded->image.height, 11);
      EXPECT_EQ(decoded->image.channels, channels);
      EXPECT_EQ(decoded->image.pixels, image.pixels);
      EXPECT_EQ(decoded->text, text);
    }
  }
}

TEST(PngCodecTest, TextIsInTheChunkTypeThatHoldsIt) {
  const std::string png =
      EncodePng(Gradient(1, 1, 3), {{"a", "caf\u00E9"}, {"b", "\u65E5"}}).value();
  EXPECT_THAT(png, HasSubstr(std::string("tEXta\0caf\xE9", 10)));
  EXPECT_THAT(png, HasSubstr(std::string("iTXtb\0\0\0\0\0\xE6\x97\xA5", 13)));
}

TEST(PngCodecTest, EncodeRefusesWhatIsNoImage) {
  const auto code = [](const Image8& image, const ImageText& text = {}, int compression = 4) {
    return EncodePng(image, text, compression).status().code();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  Image8 short_pixels = Gradient(4, 4, 3);
  short_pixels.pixels.pop_back();
  EXPECT_EQ(code(short_pixels), kInvalid);
  EXPECT_EQ(code(Gradient(4, 4, 1)), kInvalid);
  EXPECT_EQ(code(Image8{}), kInvalid);
  EXPECT_EQ(code(Gradient(1, 1, 3), {}, 10), kInvalid);
  EXPECT_EQ(code(Gradient(1, 1, 3), {}, -1), kInvalid);
  for (const std::string& keyword : {std::string(), std::string(80, 'k'), std::string(" k"),
                                     std::string("k "), std::string("a  b"), std::string("\n")}) {
    EXPECT_EQ(code(Gradient(1, 1, 3), {{keyword, "x"}}), kInvalid) << keyword;
  }
  EXPECT_EQ(code(Gradient(1, 1, 3), {{"k", std::string("a\0b", 3)}}), kInvalid);
  EXPECT_EQ(code(Gradient(1, 1, 3), {{"k", "\xFF"}}), kInvalid);
}

// ---- Colour types ----

TEST(PngCodecTest, SixteenBitIsScaled) {
  const auto decoded = DecodePng(
      Png(Header(2, 1, 16, 2), std::string("\0\xFF\xFF\x80\x80\0\0\0\x7F\x01\0\xFF\xFE", 13)));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->image.pixels, ElementsAre(255, 128, 0, 0, 1, 255));
}

TEST(PngCodecTest, PaletteWithAndWithoutTransparency) {
  const std::string palette = Chunk("PLTE", std::string("\x01\x02\x03\xFF\xFE\xFD", 6));
  const std::string lines("\0\x40", 2);  // 1 bit a pixel: 0 1
  const auto opaque = DecodePng(Png(Header(2, 1, 1, 3), lines, palette));
  ASSERT_TRUE(opaque.ok()) << opaque.status();
  EXPECT_EQ(opaque->image.channels, 3);
  EXPECT_THAT(opaque->image.pixels, ElementsAre(1, 2, 3, 255, 254, 253));
  const auto clear =
      DecodePng(Png(Header(2, 1, 1, 3), lines, palette + Chunk("tRNS", std::string(1, '\x10'))));
  ASSERT_TRUE(clear.ok()) << clear.status();
  EXPECT_EQ(clear->image.channels, 4);
  EXPECT_THAT(clear->image.pixels, ElementsAre(1, 2, 3, 16, 255, 254, 253, 255));
}

TEST(PngCodecTest, GrayBecomesRgbAndGrayAlphaRgba) {
  const auto gray = DecodePng(Png(Header(4, 1, 2, 0), std::string("\0\x1B", 2)));  // 0 1 2 3
  ASSERT_TRUE(gray.ok()) << gray.status();
  EXPECT_THAT(gray->image.pixels, ElementsAre(0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255));
  const auto alpha = DecodePng(Png(Header(1, 1, 8, 4), std::string("\0\x07\x09", 3)));
  ASSERT_TRUE(alpha.ok()) << alpha.status();
  EXPECT_EQ(alpha->image.channels, 4);
  EXPECT_THAT(alpha->image.pixels, ElementsAre(7, 7, 7, 9));
}

TEST(PngCodecTest, InterlacedIsTheSameImage) {
  const Image8 image = Gradient(13, 9, 3);
  const PixelFunction pixel = [&](int x, int y) {
    return std::string(reinterpret_cast<const char*>(&image.pixels[(y * 13 + x) * 3]), 3);
  };
  const auto plain = DecodePng(Png(Header(13, 9, 8, 2), Scanlines(13, 9, pixel)));
  const auto interlaced = DecodePng(Png(Header(13, 9, 8, 2, 1), Adam7(13, 9, pixel)));
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_TRUE(interlaced.ok()) << interlaced.status();
  EXPECT_EQ(plain->image.pixels, image.pixels);
  EXPECT_EQ(interlaced->image.pixels, image.pixels);
}

TEST(PngCodecTest, AncillaryChunksAreSkippedEvenWhenBroken) {
  const std::string junk = Chunk("iCCP", "junk") + Chunk("eXIf", "x") + Chunk("gAMA", "") +
                           Chunk("zzZz", std::string(1000, 'z'));
  const auto decoded = DecodePng(Png(Header(1, 1, 8, 0), std::string(2, '\0'), junk));
  EXPECT_TRUE(decoded.ok()) << decoded.status();
}

// ---- Malformed files ----

TEST(MalformedPng, TruncatedAnywhere) {
  const std::string png = EncodePng(Gradient(64, 48, 3), {{"parameters", "cat"}}).value();
  for (size_t size = 0; size < png.size(); size += 37) {
    MessageOf(std::string_view(png).substr(0, size));
  }
  EXPECT_THAT(MessageOf(std::string_view(png).substr(0, png.size() - 1)), HasSubstr("ends early"));
}

TEST(MalformedPng, NotAPng) { EXPECT_THAT(MessageOf("GIF89a, honestly"), HasSubstr("PNG")); }

TEST(MalformedPng, WrongCrcOfHeaderAndData) {
  const std::string png = EncodePng(Gradient(8, 8, 3), {}).value();
  for (const char* chunk : {"IHDR", "IDAT"}) {
    std::string broken = png;
    const size_t at = broken.find(chunk);
    uint32_t length = 0;
    for (int i = 0; i < 4; ++i) length = length << 8 | static_cast<uint8_t>(broken[at - 4 + i]);
    broken[at + 4 + length] ^= 1;
    EXPECT_THAT(MessageOf(broken), HasSubstr("CRC")) << chunk;
  }
}

TEST(MalformedPng, HugeDimensions) {
  const std::string lines(100, '\0');
  EXPECT_THAT(MessageOf(Png(Header(0x7FFFFFFF, 0x7FFFFFFF, 8, 6), lines)),
              HasSubstr("2147483647 x 2147483647 pixels; at most"));
  EXPECT_THAT(MessageOf(Png(Header(0xFFFFFFFF, 1, 8, 2), lines)), HasSubstr("not a readable PNG"));
  // Within the limit, but far more than so few bytes can hold: no memory is taken for it.
  EXPECT_THAT(MessageOf(Png(Header(8192, 8192, 8, 2), lines)), HasSubstr("cannot hold"));
}

TEST(MalformedPng, AChunkLongerThanTheFileTakesNoMemory) {
  std::string png = Png(Header(1, 1, 8, 0), std::string(2, '\0'), Chunk("zTXt", "text"));
  png.replace(png.find("zTXt") - 4, 4, BigEndian32(0x6C00000F));
  EXPECT_THAT(MessageOf(png), HasSubstr("ends early"));
}

TEST(MalformedPng, MoreThanTheCallersLimit) {
  const std::string png = EncodePng(Gradient(8, 8, 3), {}).value();
  EXPECT_TRUE(DecodePng(png, 64).ok());
  EXPECT_THAT(DecodePng(png, 63).status().message(), HasSubstr("8 x 8 pixels; at most 63"));
  EXPECT_FALSE(DecodePng(png, -1).ok());
}

TEST(MalformedPng, ZeroDimensions) {
  MessageOf(Png(Header(0, 1, 8, 2), ""));
  MessageOf(Png(Header(1, 0, 8, 2), ""));
}

TEST(MalformedPng, ImpossibleDepthAndColorType) {
  MessageOf(Png(Header(1, 1, 3, 2), std::string(4, '\0')));
  MessageOf(Png(Header(1, 1, 8, 5), std::string(4, '\0')));
}

TEST(MalformedPng, PaletteMissing) { MessageOf(Png(Header(1, 1, 8, 3), std::string(2, '\0'))); }

TEST(MalformedPng, TooFewScanlines) { MessageOf(Png(Header(4, 4, 8, 2), std::string(13, '\0'))); }

TEST(MalformedPng, UnknownFilter) {
  MessageOf(Png(Header(1, 1, 8, 0), std::string("\x09\x00", 2)));
}

TEST(MalformedPng, DataIsNotDeflate) {
  MessageOf(absl::StrCat(kSignature, Header(1, 1, 8, 0), Chunk("IDAT", "not deflate"),
                         Chunk("IEND", "")));
}

TEST(MalformedPng, NoData) {
  MessageOf(absl::StrCat(kSignature, Header(1, 1, 8, 0), Chunk("IEND", "")));
}

TEST(MalformedPng, IllFormedUtf8TextIsLeftOut) {
  const std::string text = Chunk("iTXt", std::string("a\0\0\0\0\0\xFF\xFE", 8)) +
                           Chunk("tEXt", std::string("b\0\xE9", 3));
  const auto decoded = DecodePng(Png(Header(1, 1, 8, 0), std::string(2, '\0'), text));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->text, ElementsAre(Pair("b", "\u00E9")));
}

TEST(MalformedPng, InflatedTextIsBounded) {
  const std::string bomb =
      Chunk("zTXt", std::string("bomb\0\0", 6) + Deflate(std::string(64 << 20, 'x'))) +
      Chunk("zTXt", std::string("fine\0\0", 6) + Deflate("text"));
  const auto decoded = DecodePng(Png(Header(1, 1, 8, 0), std::string(2, '\0'), bomb));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->text, ElementsAre(Pair("fine", "text")));
}

TEST(MalformedPng, OnlySoManyTextChunksAreKept) {
  std::string chunks;
  for (int i = 0; i < 1000; ++i) chunks += Chunk("tEXt", std::string("k\0v", 3));
  const auto decoded = DecodePng(Png(Header(1, 1, 8, 0), std::string(2, '\0'), chunks));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->text, SizeIs(16));
}

}  // namespace
}  // namespace distorch
