// Any bytes are a JPEG that decodes or an error, and what decodes can be turned and encoded again.
#include <cstdint>
#include <string_view>
#include <utility>

#include "lib/pipeline/exif.h"
#include "lib/pipeline/jpeg_codec.h"
#include "tests/fuzz/require.h"

using distorch::Require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kMaxPixels = 1 << 16;
  auto decoded = distorch::DecodeJpeg({reinterpret_cast<const char*>(data), size}, kMaxPixels);
  if (!decoded.ok()) {
    Require(decoded.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  const size_t bytes = decoded->image.pixels.size();
  Require(distorch::CheckImage(decoded->image).ok());
  const distorch::Image8 upright =
      distorch::Oriented(std::move(decoded->image), distorch::ExifOrientation(decoded->exif));
  Require(distorch::CheckImage(upright).ok() && upright.pixels.size() == bytes);
  const auto encoded = distorch::EncodeJpeg(upright, decoded->exif);
  if (encoded.ok()) Require(distorch::DecodeJpeg(*encoded, kMaxPixels)->exif == decoded->exif);
  return 0;
}
