// Images to and from WebP bytes (RFC 9649). Uses libwebp; free of LibTorch. Decoding takes hostile
// input.
#ifndef LIB_PIPELINE_WEBP_CODEC_H_
#define LIB_PIPELINE_WEBP_CODEC_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/pipeline/image8.h"

namespace distorch {

// Lossy, at a quality that hides the compression. `exif`: a TIFF structure (lib/pipeline/exif.h),
// or empty. INVALID_ARGUMENT for an image over the format's 16383 pixels a side.
absl::StatusOr<std::string> EncodeWebp(const Image8& image, std::string_view exif);

struct DecodedWebp {
  Image8 image;      // RGB, or RGBA when the file has transparency; as stored, whatever orientation
                     // `exif` says
  std::string exif;  // empty when there is none
};
// INVALID_ARGUMENT saying what is wrong, also for an animation; images over `max_pixels` are
// refused before memory is taken.
absl::StatusOr<DecodedWebp> DecodeWebp(std::string_view bytes,
                                       int64_t max_pixels = kMaxImagePixels);

}  // namespace distorch

#endif  // LIB_PIPELINE_WEBP_CODEC_H_
