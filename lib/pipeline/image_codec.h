// Image files, whatever their format: what clients send, and what they get. Free of LibTorch.
#ifndef LIB_PIPELINE_IMAGE_CODEC_H_
#define LIB_PIPELINE_IMAGE_CODEC_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/pipeline/image8.h"

namespace distorch {

enum class ImageFormat { kPng, kJpeg, kWebp };

// "png", "jpeg" or "jpg", "webp"; empty is PNG. nullopt for any other name.
std::optional<ImageFormat> ImageFormatByName(std::string_view name);
// For messages: "png, jpeg, webp".
std::string_view ImageFormatNames();

// Decodes PNG, JPEG or WebP, told apart by their first bytes, to 8-bit RGB (RGBA where the file has
// transparency), upright: EXIF's orientation is applied. INVALID_ARGUMENT saying what is wrong.
absl::StatusOr<Image8> DecodeImage(std::string_view bytes, int64_t max_pixels = kMaxImagePixels);

// `text` becomes PNG's text chunks, or the EXIF of the others (as much as fits there).
absl::StatusOr<std::string> EncodeImage(const Image8& image, ImageFormat format,
                                        const ImageText& text);

}  // namespace distorch

#endif  // LIB_PIPELINE_IMAGE_CODEC_H_
