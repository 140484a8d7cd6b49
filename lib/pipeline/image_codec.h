// Images to and from PNG bytes, with text chunks. Uses libpng; free of LibTorch. Decoding takes
// hostile input.
#ifndef LIB_PIPELINE_IMAGE_CODEC_H_
#define LIB_PIPELINE_IMAGE_CODEC_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace distorch {

// 8-bit interleaved RGB (channels 3) or RGBA (channels 4), rows from the top.
struct Image8 {
  int width = 0, height = 0, channels = 3;
  std::vector<uint8_t> pixels;  // height * width * channels
};

using PngText = std::vector<std::pair<std::string, std::string>>;  // keyword -> UTF-8 text

// tEXt chunks for ASCII/Latin-1 text, iTXt for the rest. `compression` is zlib's 0…9.
absl::StatusOr<std::string> EncodePng(const Image8& image, const PngText& text,
                                      int compression = 4);

struct DecodedPng {
  Image8 image;  // any colour type and depth, brought to 8-bit RGB, or RGBA when the file has
                 // transparency
  PngText text;
};
// INVALID_ARGUMENT saying what is wrong; images over `max_pixels` are refused before memory is
// taken.
absl::StatusOr<DecodedPng> DecodePng(std::string_view bytes, int64_t max_pixels = 64ll << 20);

}  // namespace distorch

#endif  // LIB_PIPELINE_IMAGE_CODEC_H_
