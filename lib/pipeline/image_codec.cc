#include "lib/pipeline/image_codec.h"

#include <utility>

#include "absl/strings/match.h"
#include "lib/base/status_macros.h"
#include "lib/pipeline/exif.h"
#include "lib/pipeline/jpeg_codec.h"
#include "lib/pipeline/png_codec.h"
#include "lib/pipeline/webp_codec.h"

namespace distorch {
namespace {

constexpr size_t kMaxWebpExifBytes = 4 << 20;  // far above any prompt that is read again

std::optional<ImageFormat> Sniff(std::string_view bytes) {
  if (absl::StartsWith(bytes, "\x89PNG")) return ImageFormat::kPng;
  if (absl::StartsWith(bytes, "\xFF\xD8\xFF")) return ImageFormat::kJpeg;
  if (absl::StartsWith(bytes, "RIFF") && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP")
    return ImageFormat::kWebp;
  return std::nullopt;
}

template <typename Decoded>
absl::StatusOr<Image8> Upright(absl::StatusOr<Decoded> decoded) {
  RETURN_IF_ERROR(decoded.status());
  return Oriented(std::move(decoded->image), ExifOrientation(decoded->exif));
}

}  // namespace

std::optional<ImageFormat> ImageFormatByName(std::string_view name) {
  if (name.empty() || name == "png") return ImageFormat::kPng;
  if (name == "jpeg" || name == "jpg") return ImageFormat::kJpeg;
  if (name == "webp") return ImageFormat::kWebp;
  return std::nullopt;
}

std::string_view ImageFormatNames() { return "png, jpeg, webp"; }

absl::StatusOr<Image8> DecodeImage(std::string_view bytes, int64_t max_pixels) {
  const std::optional<ImageFormat> format = Sniff(bytes);
  if (!format) return absl::InvalidArgumentError("not an image; allowed: PNG, JPEG, WebP files");
  switch (*format) {
    case ImageFormat::kPng:
      return Upright(DecodePng(bytes, max_pixels));
    case ImageFormat::kJpeg:
      return Upright(DecodeJpeg(bytes, max_pixels));
    case ImageFormat::kWebp:
      return Upright(DecodeWebp(bytes, max_pixels));
  }
  __builtin_unreachable();
}

absl::StatusOr<std::string> EncodeImage(const Image8& image, ImageFormat format,
                                        const ImageText& text) {
  switch (format) {
    case ImageFormat::kPng:
      return EncodePng(image, text);
    case ImageFormat::kJpeg:
      return EncodeJpeg(image, ExifFromText(text, kMaxJpegExifBytes));
    case ImageFormat::kWebp:
      return EncodeWebp(image, ExifFromText(text, kMaxWebpExifBytes));
  }
  __builtin_unreachable();
}

}  // namespace distorch
