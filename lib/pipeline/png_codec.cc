#include "lib/pipeline/png_codec.h"

#include <png.h>
#include <unicode/utf8.h>
#include <zlib.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <optional>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace distorch {
namespace {

// libpng leaves its functions by longjmp. So whatever owns memory lives in a PngReader or PngWriter
// outside of Guarded(), and what runs inside it has only plain values on its stack.
struct ErrorText {
  char text[128] = "unknown error";
};

extern "C" [[noreturn]] void DistorchPngError(png_structp png, png_const_charp message) {
  auto* error = static_cast<ErrorText*>(png_get_error_ptr(png));
  std::strncpy(error->text, message, sizeof(error->text) - 1);
  png_longjmp(png, 1);
}

extern "C" void DistorchPngWarning(png_structp, png_const_charp) {}

// Runs `steps` and returns true, or false when libpng gave up in it. `Steps` must have no
// destructor to run.
template <typename Steps>
bool Guarded(png_structp png, const Steps& steps) {
  static_assert(std::is_trivially_destructible_v<Steps>);
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  steps();
  return true;
}

// ---- UTF-8 and Latin-1 ----

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    UChar32 c;
    U8_NEXT(reinterpret_cast<const uint8_t*>(text.data()), i, text.size(), c);
    if (c < 0) return false;
  }
  return true;
}

// Well-formed UTF-8 as Latin-1; nullopt when it has characters beyond.
std::optional<std::string> Latin1FromUtf8(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    UChar32 c;
    U8_NEXT(reinterpret_cast<const uint8_t*>(text.data()), i, text.size(), c);
    if (c < 0 || c > 0xFF) return std::nullopt;
    result.push_back(static_cast<char>(c));
  }
  return result;
}

std::string Utf8FromLatin1(std::string_view text) {
  std::string result;
  for (unsigned char c : text) {
    if (c < 0x80) {
      result.push_back(static_cast<char>(c));
    } else {
      result.push_back(static_cast<char>(0xC0 | (c >> 6)));
      result.push_back(static_cast<char>(0x80 | (c & 0x3F)));
    }
  }
  return result;
}

// ---- Writing ----

class PngWriter {
 public:
  PngWriter()
      : png_(png_create_write_struct(PNG_LIBPNG_VER_STRING, &error_, DistorchPngError,
                                     DistorchPngWarning)),
        info_(png_ == nullptr ? nullptr : png_create_info_struct(png_)) {}
  PngWriter(const PngWriter&) = delete;
  ~PngWriter() { png_destroy_write_struct(&png_, &info_); }

  absl::StatusOr<std::string> Write(const Image8& image, std::vector<png_text> text,
                                    int compression) {
    if (info_ == nullptr) return absl::ResourceExhaustedError("no memory for the PNG writer");
    const size_t stride = static_cast<size_t>(image.width) * image.channels;
    const uint8_t* pixels = image.pixels.data();
    const bool done = Guarded(png_, [&] {
      png_set_write_fn(png_, &bytes_, Append, nullptr);
      png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
      png_set_compression_level(png_, compression);
      png_set_IHDR(png_, info_, image.width, image.height, 8,
                   image.channels == 4 ? PNG_COLOR_TYPE_RGB_ALPHA : PNG_COLOR_TYPE_RGB,
                   PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
      png_set_text(png_, info_, text.data(), static_cast<int>(text.size()));
      png_write_info(png_, info_);
      for (int y = 0; y < image.height; ++y) png_write_row(png_, pixels + y * stride);
      png_write_end(png_, info_);
    });
    if (!done) return absl::InternalError(absl::StrCat("writing the PNG: ", error_.text));
    return std::move(bytes_);
  }

 private:
  static void Append(png_structp png, png_bytep data, size_t size) {
    static_cast<std::string*>(png_get_io_ptr(png))
        ->append(reinterpret_cast<const char*>(data), size);
  }

  ErrorText error_;
  std::string bytes_;
  png_structp png_;
  png_infop info_;
};

// The PNG specification's rule for keywords: 1…79 printable Latin-1 characters, spaces only single
// and inside. Ours are ASCII.
absl::Status CheckText(std::string_view keyword, std::string_view text) {
  const auto printable = [](char c) { return c >= 0x20 && c <= 0x7E; };
  if (keyword.empty() || keyword.size() > PNG_KEYWORD_MAX_LENGTH || keyword.front() == ' ' ||
      keyword.back() == ' ' || keyword.find("  ") != keyword.npos ||
      !std::all_of(keyword.begin(), keyword.end(), printable)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", keyword, "\" is not a PNG keyword: 1 to 79 printable ASCII characters"));
  }
  if (text.find('\0') != text.npos || !IsUtf8(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text of \"", keyword, "\" is not UTF-8 without NUL"));
  }
  return absl::OkStatus();
}

// ---- Reading ----

constexpr size_t kMaxTextBytes = 8 << 20;  // of one chunk, inflated
constexpr int kMaxTextChunks = 16;         // what comes after is skipped

// libpng takes memory for a whole chunk as soon as it has read the length: every chunk must lie in
// the file. Returns the data of the first eXIf chunk.
absl::StatusOr<std::string_view> CheckChunks(std::string_view png) {
  constexpr size_t kSignature = 8, kFraming = 12;  // length, type and CRC
  std::string_view exif;
  png.remove_prefix(std::min(kSignature, png.size()));
  while (png.size() >= kFraming) {
    const size_t length = png_get_uint_32(reinterpret_cast<png_const_bytep>(png.data()));
    if (length > png.size() - kFraming) break;
    if (png.substr(4, 4) == "IEND") return exif;
    if (png.substr(4, 4) == "eXIf" && exif.empty()) exif = png.substr(8, length);
    png.remove_prefix(length + kFraming);
  }
  return absl::InvalidArgumentError("not a readable PNG: the file ends early");
}

struct Header {
  png_uint_32 width = 0, height = 0;
  int bit_depth = 0, color_type = 0;
};

class PngReader {
 public:
  explicit PngReader(std::string_view bytes)
      : source_(bytes),
        png_(png_create_read_struct(PNG_LIBPNG_VER_STRING, &error_, DistorchPngError,
                                    DistorchPngWarning)),
        info_(png_ == nullptr ? nullptr : png_create_info_struct(png_)) {}
  PngReader(const PngReader&) = delete;
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

  absl::StatusOr<DecodedPng> Read(int64_t max_pixels) {
    if (info_ == nullptr) return absl::ResourceExhaustedError("no memory for the PNG reader");
    DecodedPng decoded;
    ASSIGN_OR_RETURN(decoded.exif, CheckChunks(source_));
    RETURN_IF_ERROR(ReadHeader(max_pixels));
    ASSIGN_OR_RETURN(decoded.image, ReadPixels());
    decoded.text = Text();
    return decoded;
  }

 private:
  static void Take(png_structp png, png_bytep out, size_t size) {
    auto* source = static_cast<std::string_view*>(png_get_io_ptr(png));
    if (size > source->size()) png_error(png, "the file ends early");
    std::memcpy(out, source->data(), size);
    source->remove_prefix(size);
  }

  absl::Status Malformed() const {
    return absl::InvalidArgumentError(absl::StrCat("not a readable PNG: ", error_.text));
  }

  // Reads up to the first pixel data, and refuses what would take more memory than it should.
  absl::Status ReadHeader(int64_t max_pixels) {
    const size_t file_bytes = source_.size();
    Header header;
    const bool done = Guarded(png_, [&] {
      static constexpr png_byte kTextChunks[] = "iTXt\0tEXt\0zTXt";
      png_set_read_fn(png_, &source_, Take);
      png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
      png_set_chunk_malloc_max(png_, kMaxTextBytes);
      png_set_chunk_cache_max(png_, kMaxTextChunks + 2);  // libpng stops two short
      // Colour profiles, EXIF and the like are not looked at, so not parsed either.
      png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
      png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_AS_DEFAULT, kTextChunks, 3);
      png_read_info(png_, info_);
      png_get_IHDR(png_, info_, &header.width, &header.height, &header.bit_depth,
                   &header.color_type, nullptr, nullptr, nullptr);
    });
    if (!done) return Malformed();
    const uint64_t pixels = uint64_t{header.width} * header.height;
    if (pixels > static_cast<uint64_t>(std::max<int64_t>(max_pixels, 0))) {
      return absl::InvalidArgumentError(absl::StrCat("the PNG has ", header.width, " x ",
                                                     header.height, " pixels; at most ", max_pixels,
                                                     " are allowed"));
    }
    // Deflate makes at most 1032 bytes of one. A file too small for its size is refused before
    // memory is taken for it.
    constexpr uint64_t kMaxInflation = 1032;
    const uint64_t bits = pixels * header.bit_depth * png_get_channels(png_, info_);
    if (bits / 8 > file_bytes * kMaxInflation) {
      return absl::InvalidArgumentError(absl::StrCat("not a readable PNG: ", file_bytes,
                                                     " bytes cannot hold ", header.width, " x ",
                                                     header.height, " pixels"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Image8> ReadPixels() {
    Image8 image;
    int passes = 1;
    const bool ready = Guarded(png_, [&] {
      png_set_expand(png_);
      png_set_scale_16(png_);
      png_set_gray_to_rgb(png_);
      passes = png_set_interlace_handling(png_);
      png_read_update_info(png_, info_);
      image.width = static_cast<int>(png_get_image_width(png_, info_));
      image.height = static_cast<int>(png_get_image_height(png_, info_));
      image.channels = png_get_channels(png_, info_);
    });
    if (!ready) return Malformed();
    const size_t stride = png_get_rowbytes(png_, info_);
    image.pixels.resize(stride * image.height);
    const bool done = Guarded(png_, [&] {
      for (int pass = 0; pass < passes; ++pass) {
        png_bytep row = image.pixels.data();
        for (int y = 0; y < image.height; ++y, row += stride) png_read_row(png_, row, nullptr);
      }
      png_read_end(png_, info_);
    });
    if (!done) return Malformed();
    return image;
  }

  ImageText Text() const {
    png_textp chunks = nullptr;
    const int count = png_get_text(png_, info_, &chunks, nullptr);
    ImageText text;
    for (int i = 0; i < count; ++i) {
      const png_text& chunk = chunks[i];
      const bool utf8 = chunk.compression >= PNG_ITXT_COMPRESSION_NONE;
      const std::string_view content(chunk.text, utf8 ? chunk.itxt_length : chunk.text_length);
      if (utf8 && !IsUtf8(content)) continue;
      text.emplace_back(Utf8FromLatin1(chunk.key),
                        utf8 ? std::string(content) : Utf8FromLatin1(content));
    }
    return text;
  }

  ErrorText error_;
  std::string_view source_;
  png_structp png_;
  png_infop info_;
};

}  // namespace

absl::StatusOr<std::string> EncodePng(const Image8& image, const ImageText& text, int compression) {
  RETURN_IF_ERROR(CheckImage(image));
  if (compression < Z_NO_COMPRESSION || compression > Z_BEST_COMPRESSION) {
    return absl::InvalidArgumentError(
        absl::StrCat("PNG compression ", compression, "; allowed are 0 to 9"));
  }
  std::vector<std::optional<std::string>> latin1;
  for (const auto& [keyword, content] : text) {
    RETURN_IF_ERROR(CheckText(keyword, content));
    latin1.push_back(Latin1FromUtf8(content));
  }
  std::vector<png_text> chunks;
  for (size_t i = 0; i < text.size(); ++i) {
    png_text& chunk = chunks.emplace_back();
    chunk.compression = latin1[i] ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    chunk.key = const_cast<char*>(text[i].first.c_str());
    chunk.text = const_cast<char*>(latin1[i] ? latin1[i]->c_str() : text[i].second.c_str());
  }
  return PngWriter().Write(image, std::move(chunks), compression);
}

absl::StatusOr<DecodedPng> DecodePng(std::string_view bytes, int64_t max_pixels) {
  return PngReader(bytes).Read(max_pixels);
}

}  // namespace distorch
