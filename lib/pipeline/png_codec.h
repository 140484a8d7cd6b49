// Images to and from PNG bytes, with text chunks. Uses libpng; free of LibTorch. Decoding takes
// hostile input.
#ifndef LIB_PIPELINE_PNG_CODEC_H_
#define LIB_PIPELINE_PNG_CODEC_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/pipeline/image8.h"

namespace distorch {

// tEXt chunks for ASCII/Latin-1 text, iTXt for the rest. `compression` is zlib's 0…9.
absl::StatusOr<std::string> EncodePng(const Image8& image, const ImageText& text,
                                      int compression = 4);

struct DecodedPng {
  Image8 image;  // any colour type and depth, brought to 8-bit RGB, or RGBA when the file has
                 // transparency; as stored, whatever orientation `exif` says
  ImageText text;
  std::string exif;  // the eXIf chunk's bytes; empty when there is none
};
// INVALID_ARGUMENT saying what is wrong; images over `max_pixels` are refused before memory is
// taken.
absl::StatusOr<DecodedPng> DecodePng(std::string_view bytes, int64_t max_pixels = kMaxImagePixels);

}  // namespace distorch

#endif  // LIB_PIPELINE_PNG_CODEC_H_
