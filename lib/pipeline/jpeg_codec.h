// Images to and from JPEG bytes (ITU-T T.81). Uses libjpeg-turbo; free of LibTorch. Decoding takes
// hostile input.
#ifndef LIB_PIPELINE_JPEG_CODEC_H_
#define LIB_PIPELINE_JPEG_CODEC_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/pipeline/image8.h"

namespace distorch {

// What a file of ours may carry as EXIF: the bytes of one segment.
constexpr size_t kMaxJpegExifBytes = 65527;

// RGB in 4:4:4 at a quality that hides the compression; an alpha channel is dropped. `exif`: a TIFF
// structure (lib/pipeline/exif.h) of at most kMaxJpegExifBytes, or empty.
absl::StatusOr<std::string> EncodeJpeg(const Image8& image, std::string_view exif);

struct DecodedJpeg {
  Image8 image;  // RGB; grey, YCbCr, CMYK and YCCK are converted. As stored, whatever orientation
                 // `exif` says
  std::string exif;  // the TIFF structure; empty when there is none
};
// INVALID_ARGUMENT saying what is wrong, also for a file whose data is cut short or corrupt; images
// over `max_pixels` are refused before memory is taken.
absl::StatusOr<DecodedJpeg> DecodeJpeg(std::string_view bytes,
                                       int64_t max_pixels = kMaxImagePixels);

}  // namespace distorch

#endif  // LIB_PIPELINE_JPEG_CODEC_H_
