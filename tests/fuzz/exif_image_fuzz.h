// What the fuzzers of image formats with Exif check.
#ifndef TESTS_FUZZ_EXIF_IMAGE_FUZZ_H_
#define TESTS_FUZZ_EXIF_IMAGE_FUZZ_H_

#include <cstdint>
#include <string_view>
#include <utility>

#include "lib/pipeline/exif.h"
#include "tests/fuzz/require.h"

namespace distorch {

// The bytes are a file that `decode` takes or an error, and what decodes can be turned and encoded
// again, with the same Exif where `keeps_exif`.
template <typename Decode, typename Encode>
void FuzzExifImage(std::string_view bytes, Decode decode, Encode encode, bool keeps_exif) {
  constexpr int64_t kMaxPixels = 1 << 16;
  auto decoded = decode(bytes, kMaxPixels);
  if (!decoded.ok()) {
    Require(decoded.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  const size_t size = decoded->image.pixels.size();
  Require(CheckImage(decoded->image).ok());
  const Image8 upright = Oriented(std::move(decoded->image), ExifOrientation(decoded->exif));
  Require(CheckImage(upright).ok() && upright.pixels.size() == size);
  const auto encoded = encode(upright, decoded->exif);
  if (!encoded.ok()) return;
  const auto again = decode(*encoded, kMaxPixels);
  Require(again.ok() && (!keeps_exif || again->exif == decoded->exif));
}

}  // namespace distorch

#endif  // TESTS_FUZZ_EXIF_IMAGE_FUZZ_H_
