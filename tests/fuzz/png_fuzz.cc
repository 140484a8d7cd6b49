// Any bytes are a PNG that decodes or an error; what decodes encodes again to the same image and
// text.
#include <cstdint>
#include <string_view>

#include "lib/pipeline/png_codec.h"
#include "tests/fuzz/require.h"

using distorch::Require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kMaxPixels = 1 << 16;
  const auto decoded = distorch::DecodePng({reinterpret_cast<const char*>(data), size}, kMaxPixels);
  if (!decoded.ok()) {
    Require(decoded.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  const distorch::Image8& image = decoded->image;
  Require(image.channels == 3 || image.channels == 4);
  Require(image.pixels.size() == size_t{1} * image.width * image.height * image.channels);
  const auto encoded = distorch::EncodePng(image, {}, 1);
  Require(encoded.ok());
  const auto again = distorch::DecodePng(*encoded, kMaxPixels);
  Require(again.ok() && again->image.pixels == image.pixels);
  // Foreign keywords may be ones that we do not write.
  if (const auto with_text = distorch::EncodePng(image, decoded->text, 0); with_text.ok()) {
    Require(distorch::DecodePng(*with_text, kMaxPixels)->text == decoded->text);
  }
  return 0;
}
