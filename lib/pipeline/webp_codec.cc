#include "lib/pipeline/webp_codec.h"

#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include <algorithm>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace distorch {
namespace {

constexpr float kQuality = 95;

absl::Status Malformed(std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("not a readable WebP: ", problem));
}

std::string_view Describe(VP8StatusCode code) {
  switch (code) {
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
      return "the file ends early";
    case VP8_STATUS_OUT_OF_MEMORY:
      return "no memory for it";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "it uses a feature that is not supported";
    default:
      return "its data is corrupt";
  }
}

const uint8_t* Bytes(std::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

// The EXIF chunk of a file that was decoded already.
std::string ReadExif(std::string_view bytes) {
  const WebPData data{Bytes(bytes), bytes.size()};
  const std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)> demuxer(WebPDemux(&data),
                                                                         &WebPDemuxDelete);
  if (demuxer == nullptr) return "";
  WebPChunkIterator chunk;
  const absl::Cleanup release = [&] { WebPDemuxReleaseChunkIterator(&chunk); };
  if (WebPDemuxGetChunk(demuxer.get(), "EXIF", 1, &chunk) == 0) return "";
  std::string_view exif(reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size);
  // Some writers put JPEG's introduction here, too.
  constexpr std::string_view kIntroduction("Exif\0\0", 6);
  if (absl::StartsWith(exif, kIntroduction)) exif.remove_prefix(kIntroduction.size());
  return std::string(exif);
}

absl::StatusOr<std::string> WithExif(std::string_view webp, std::string_view exif) {
  const WebPData image{Bytes(webp), webp.size()}, chunk{Bytes(exif), exif.size()};
  const std::unique_ptr<WebPMux, decltype(&WebPMuxDelete)> mux(
      WebPMuxCreate(&image, /*copy_data=*/0), &WebPMuxDelete);
  WebPData assembled;
  WebPDataInit(&assembled);
  const absl::Cleanup clear = [&] { WebPDataClear(&assembled); };
  if (mux == nullptr ||
      WebPMuxSetChunk(mux.get(), "EXIF", &chunk, /*copy_data=*/0) != WEBP_MUX_OK ||
      WebPMuxAssemble(mux.get(), &assembled) != WEBP_MUX_OK) {
    return absl::InternalError("writing the WebP: cannot add EXIF");
  }
  return std::string(reinterpret_cast<const char*>(assembled.bytes), assembled.size);
}

}  // namespace

absl::StatusOr<std::string> EncodeWebp(const Image8& image, std::string_view exif) {
  RETURN_IF_ERROR(CheckImage(image));
  if (std::max(image.width, image.height) > WEBP_MAX_DIMENSION) {
    return absl::InvalidArgumentError(absl::StrCat("an image of ", image.width, " x ", image.height,
                                                   " pixels; WebP takes at most ",
                                                   WEBP_MAX_DIMENSION, " a side"));
  }
  WebPConfig config;
  WebPPicture picture;
  if (WebPConfigPreset(&config, WEBP_PRESET_DEFAULT, kQuality) == 0 ||
      WebPPictureInit(&picture) == 0) {
    return absl::InternalError("libwebp differs from the one this program was built with");
  }
  WebPMemoryWriter writer;
  WebPMemoryWriterInit(&writer);
  const absl::Cleanup free = [&] {
    WebPPictureFree(&picture);
    WebPMemoryWriterClear(&writer);
  };
  picture.width = image.width;
  picture.height = image.height;
  picture.writer = WebPMemoryWrite;
  picture.custom_ptr = &writer;
  const int stride = image.width * image.channels;
  const int imported = image.channels == 4
                           ? WebPPictureImportRGBA(&picture, image.pixels.data(), stride)
                           : WebPPictureImportRGB(&picture, image.pixels.data(), stride);
  if (imported == 0 || WebPEncode(&config, &picture) == 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("writing the WebP: libwebp's error ", picture.error_code));
  }
  const std::string_view bytes(reinterpret_cast<const char*>(writer.mem), writer.size);
  if (exif.empty()) return std::string(bytes);
  return WithExif(bytes, exif);
}

absl::StatusOr<DecodedWebp> DecodeWebp(std::string_view bytes, int64_t max_pixels) {
  WebPBitstreamFeatures features;
  const VP8StatusCode header = WebPGetFeatures(Bytes(bytes), bytes.size(), &features);
  if (header != VP8_STATUS_OK) return Malformed(Describe(header));
  if (features.has_animation != 0) return Malformed("it is an animation; allowed: a still picture");
  const int64_t pixels = int64_t{features.width} * features.height;
  if (pixels > max_pixels) {
    return absl::InvalidArgumentError(absl::StrCat("the WebP has ", features.width, " x ",
                                                   features.height, " pixels; at most ", max_pixels,
                                                   " are allowed"));
  }
  DecodedWebp decoded;
  decoded.image.width = features.width;
  decoded.image.height = features.height;
  decoded.image.channels = features.has_alpha != 0 ? 4 : 3;
  decoded.image.pixels.resize(static_cast<size_t>(pixels) * decoded.image.channels);

  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0)
    return absl::InternalError("libwebp differs from the one this program was built with");
  config.output.colorspace = features.has_alpha != 0 ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {decoded.image.pixels.data(), features.width * decoded.image.channels,
                          decoded.image.pixels.size()};
  const VP8StatusCode body = WebPDecode(Bytes(bytes), bytes.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (body == VP8_STATUS_OUT_OF_MEMORY)
    return absl::ResourceExhaustedError("no memory to decode the WebP");
  if (body != VP8_STATUS_OK) return Malformed(Describe(body));
  decoded.exif = ReadExif(bytes);
  return decoded;
}

}  // namespace distorch
