// Any bytes are a JPEG that decodes or an error, and what decodes can be turned and encoded again.
#include "lib/pipeline/jpeg_codec.h"
#include "tests/fuzz/exif_image_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  distorch::FuzzExifImage(
      {reinterpret_cast<const char*>(data), size},
      [](auto bytes, int64_t max_pixels) { return distorch::DecodeJpeg(bytes, max_pixels); },
      [](const auto& image, const auto& exif) { return distorch::EncodeJpeg(image, exif); },
      /*keeps_exif=*/true);
  return 0;
}
