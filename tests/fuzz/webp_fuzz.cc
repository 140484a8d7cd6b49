// Any bytes are a WebP that decodes or an error, and what decodes can be turned and encoded again.
#include "lib/pipeline/webp_codec.h"
#include "tests/fuzz/exif_image_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  distorch::FuzzExifImage(
      {reinterpret_cast<const char*>(data), size},
      [](auto bytes, int64_t max_pixels) { return distorch::DecodeWebp(bytes, max_pixels); },
      [](const auto& image, const auto& exif) { return distorch::EncodeWebp(image, exif); },
      /*keeps_exif=*/false);
  return 0;
}
