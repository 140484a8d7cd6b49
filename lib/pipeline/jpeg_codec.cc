#include "lib/pipeline/jpeg_codec.h"

// libjpeg's headers use what these declare.
#include <cstddef>
#include <cstdio>
// clang-format off
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <algorithm>
#include <csetjmp>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace distorch {
namespace {

constexpr int kQuality = 95;
// A scan of a progressive file may cost a pass over the whole image for a few bytes; real ones have
// about ten.
constexpr int kMaxScans = 100;
constexpr int kExifMarker = JPEG_APP0 + 1;
constexpr std::string_view kExifIntroduction("Exif\0\0", 6);

// libjpeg is left by longjmp. So whatever owns memory lives in a JpegReader or JpegWriter outside
// of Guarded(), and what runs inside it has only plain values on its stack.
struct ErrorManager {
  jpeg_error_mgr base;  // first: libjpeg hands this one back
  std::jmp_buf jump;
  char text[JMSG_LENGTH_MAX];
};

extern "C" [[noreturn]] void DistorchJpegError(j_common_ptr info) {
  auto* error = reinterpret_cast<ErrorManager*>(info->err);
  info->err->format_message(info, error->text);
  std::longjmp(error->jump, 1);
}

// libjpeg would go on with grey where data is missing or wrong. Harmless oddities pass.
extern "C" void DistorchJpegMessage(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      DistorchJpegError(info);
    default:
      return;
  }
}

extern "C" void DistorchJpegProgress(j_common_ptr info) {
  if (info->is_decompressor != 0 &&
      reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMaxScans) {
    ERREXIT(info, JERR_BAD_PROGRESSION);
  }
}

jpeg_error_mgr* SetUp(ErrorManager* error) {
  jpeg_std_error(&error->base);
  error->base.error_exit = DistorchJpegError;
  error->base.emit_message = DistorchJpegMessage;
  error->text[0] = '\0';
  return &error->base;
}

// Runs `steps` and returns true, or false when libjpeg gave up in it. `Steps` must have no
// destructor to run.
template <typename Steps>
bool Guarded(ErrorManager* error, const Steps& steps) {
  static_assert(std::is_trivially_destructible_v<Steps>);
  if (setjmp(error->jump) != 0) return false;
  steps();
  return true;
}

// ---- Writing ----

// libjpeg's own destination in memory loses track of its buffer when an error interrupts it.
struct StringDestination {
  jpeg_destination_mgr base;  // first: libjpeg hands this one back
  std::string bytes;
  JOCTET buffer[16 << 10];

  void Restart() {
    base.next_output_byte = buffer;
    base.free_in_buffer = sizeof(buffer);
  }
  void Take(size_t count) {
    bytes.append(reinterpret_cast<const char*>(buffer), count);
    Restart();
  }
};

StringDestination* DestinationOf(j_compress_ptr info) {
  return reinterpret_cast<StringDestination*>(info->dest);
}

extern "C" void DistorchJpegStart(j_compress_ptr info) { DestinationOf(info)->Restart(); }

extern "C" boolean DistorchJpegFlush(j_compress_ptr info) {
  DestinationOf(info)->Take(sizeof(StringDestination::buffer));
  return TRUE;
}

extern "C" void DistorchJpegEnd(j_compress_ptr info) {
  StringDestination* to = DestinationOf(info);
  to->Take(sizeof(to->buffer) - to->base.free_in_buffer);
}

class JpegWriter {
 public:
  JpegWriter() { info_.err = SetUp(&error_); }
  JpegWriter(const JpegWriter&) = delete;
  ~JpegWriter() { jpeg_destroy_compress(&info_); }

  absl::StatusOr<std::string> Write(const Image8& image, std::string_view exif) {
    std::string segment;
    if (!exif.empty()) segment = absl::StrCat(kExifIntroduction, exif);
    std::vector<uint8_t> row(static_cast<size_t>(image.width) * 3);
    const bool done = Guarded(&error_, [&] {
      Start(image);
      if (!segment.empty()) {
        jpeg_write_marker(&info_, kExifMarker, reinterpret_cast<const JOCTET*>(segment.data()),
                          static_cast<unsigned>(segment.size()));
      }
      const uint8_t* from = image.pixels.data();
      for (int y = 0; y < image.height; ++y) {
        for (uint8_t* to = row.data(); to != row.data() + row.size(); to += 3) {
          std::copy(from, from + 3, to);
          from += image.channels;
        }
        JSAMPROW rows[] = {row.data()};
        jpeg_write_scanlines(&info_, rows, 1);
      }
      jpeg_finish_compress(&info_);
    });
    if (!done) return absl::InternalError(absl::StrCat("writing the JPEG: ", error_.text));
    return std::move(destination_.bytes);
  }

 private:
  void Start(const Image8& image) {
    jpeg_create_compress(&info_);
    destination_.base.init_destination = DistorchJpegStart;
    destination_.base.empty_output_buffer = DistorchJpegFlush;
    destination_.base.term_destination = DistorchJpegEnd;
    info_.dest = &destination_.base;
    info_.image_width = static_cast<JDIMENSION>(image.width);
    info_.image_height = static_cast<JDIMENSION>(image.height);
    info_.input_components = 3;
    info_.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info_);
    jpeg_set_quality(&info_, kQuality, /*force_baseline=*/TRUE);
    info_.comp_info[0].h_samp_factor = info_.comp_info[0].v_samp_factor = 1;
    info_.optimize_coding = TRUE;
    jpeg_start_compress(&info_, /*write_all_tables=*/TRUE);
  }

  ErrorManager error_ = {};
  jpeg_compress_struct info_ = {};
  StringDestination destination_ = {};
};

// ---- Reading ----

// How published CMYK files are meant: inverted, as Adobe's programs write them.
void InvertedCmykToRgb(const uint8_t* cmyk, int width, uint8_t* rgb) {
  for (int x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    for (int c = 0; c < 3; ++c) rgb[c] = static_cast<uint8_t>((cmyk[c] * cmyk[3] + 127) / 255);
  }
}

class JpegReader {
 public:
  explicit JpegReader(std::string_view bytes) : source_(bytes) { info_.err = SetUp(&error_); }
  JpegReader(const JpegReader&) = delete;
  ~JpegReader() { jpeg_destroy_decompress(&info_); }

  absl::StatusOr<DecodedJpeg> Read(int64_t max_pixels) {
    RETURN_IF_ERROR(ReadHeader(max_pixels));
    DecodedJpeg decoded;
    decoded.exif = Exif();
    ASSIGN_OR_RETURN(decoded.image, ReadPixels());
    return decoded;
  }

 private:
  absl::Status Malformed() const {
    return absl::InvalidArgumentError(absl::StrCat("not a readable JPEG: ", error_.text));
  }

  absl::Status ReadHeader(int64_t max_pixels) {
    constexpr long kBytesAPixel = 16, kFixedBytes = 16 << 20;  // NOLINT: libjpeg's type
    const bool done = Guarded(&error_, [&] {
      jpeg_create_decompress(&info_);
      progress_.progress_monitor = DistorchJpegProgress;
      info_.progress = &progress_;
      info_.mem->max_memory_to_use = max_pixels * kBytesAPixel + kFixedBytes;
      jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(source_.data()), source_.size());
      jpeg_save_markers(&info_, kExifMarker, 0xFFFF);
      jpeg_read_header(&info_, /*require_image=*/TRUE);
    });
    if (!done) return Malformed();
    const int64_t pixels = int64_t{info_.image_width} * info_.image_height;
    if (pixels > max_pixels) {
      return absl::InvalidArgumentError(absl::StrCat("the JPEG has ", info_.image_width, " x ",
                                                     info_.image_height, " pixels; at most ",
                                                     max_pixels, " are allowed"));
    }
    // Huffman codes have at least one bit, and a block of 8 x 8 pixels at least one code. A file
    // too small for its size is refused before memory is taken for it.
    constexpr int64_t kMaxPixelsAByte = 64 * 8;
    const auto file_bytes = static_cast<int64_t>(source_.size());
    if (info_.arith_code == 0 && pixels / kMaxPixelsAByte > file_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("not a readable JPEG: ", file_bytes,
                                                     " bytes cannot hold ", info_.image_width,
                                                     " x ", info_.image_height, " pixels"));
    }
    return absl::OkStatus();
  }

  std::string Exif() const {
    for (const auto* marker = info_.marker_list; marker != nullptr; marker = marker->next) {
      const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
      if (absl::StartsWith(data, kExifIntroduction))
        return std::string(data.substr(kExifIntroduction.size()));
    }
    return "";
  }

  absl::StatusOr<Image8> ReadPixels() {
    const bool cmyk = info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK;
    const bool started = Guarded(&error_, [&] {
      info_.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
      jpeg_start_decompress(&info_);
    });
    if (!started) return Malformed();
    Image8 image{.width = static_cast<int>(info_.output_width),
                 .height = static_cast<int>(info_.output_height),
                 .channels = 3,
                 .pixels = {}};
    const size_t stride = static_cast<size_t>(image.width) * 3;
    image.pixels.resize(stride * image.height);
    std::vector<uint8_t> cmyk_row(cmyk ? static_cast<size_t>(image.width) * 4 : 0);
    const bool done = Guarded(&error_, [&] {
      uint8_t* to = image.pixels.data();
      for (int y = 0; y < image.height; ++y, to += stride) {
        JSAMPROW rows[] = {cmyk ? cmyk_row.data() : to};
        jpeg_read_scanlines(&info_, rows, 1);
        if (cmyk) InvertedCmykToRgb(cmyk_row.data(), image.width, to);
      }
      jpeg_finish_decompress(&info_);
    });
    if (!done) return Malformed();
    return image;
  }

  std::string_view source_;
  ErrorManager error_ = {};
  jpeg_progress_mgr progress_ = {};
  jpeg_decompress_struct info_ = {};
};

}  // namespace

absl::StatusOr<std::string> EncodeJpeg(const Image8& image, std::string_view exif) {
  RETURN_IF_ERROR(CheckImage(image));
  if (exif.size() > kMaxJpegExifBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(exif.size(), " bytes of EXIF; allowed: at most ", kMaxJpegExifBytes));
  }
  return JpegWriter().Write(image, exif);
}

absl::StatusOr<DecodedJpeg> DecodeJpeg(std::string_view bytes, int64_t max_pixels) {
  return JpegReader(bytes).Read(max_pixels);
}

}  // namespace distorch
