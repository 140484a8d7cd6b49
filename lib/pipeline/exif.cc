#include "lib/pipeline/exif.h"

#include <unicode/utf8.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

enum Tag : uint16_t {
  kModel = 0x0110,
  kOrientation = 0x0112,
  kExifIfd = 0x8769,
  kUserComment = 0x9286,
};
enum Type : uint16_t { kAscii = 2, kShort = 3, kLong = 4, kUndefined = 7 };

constexpr size_t kHeaderBytes = 8, kCountBytes = 2, kEntryBytes = 12, kLinkBytes = 4;

// ---- Reading ----

// Integers of a TIFF structure in its byte order; nullopt past its end.
class TiffReader {
 public:
  explicit TiffReader(std::string_view bytes)
      : bytes_(bytes), big_endian_(bytes.substr(0, 2) == "MM") {}

  bool valid() const { return (big_endian_ || bytes_.substr(0, 2) == "II") && Read(2, 2) == 42u; }

  std::optional<uint32_t> Read(size_t offset, size_t width) const {
    if (offset > bytes_.size() || width > bytes_.size() - offset) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < width; ++i) {
      value = value << 8 | static_cast<uint8_t>(bytes_[offset + (big_endian_ ? i : width - 1 - i)]);
    }
    return value;
  }

 private:
  std::string_view bytes_;
  bool big_endian_;
};

// ---- Writing: big-endian, as the WebUI's library writes it ----

void Append16(std::string* out, uint32_t value) {
  out->push_back(static_cast<char>(value >> 8));
  out->push_back(static_cast<char>(value));
}

void Append32(std::string* out, uint32_t value) {
  Append16(out, value >> 16);
  Append16(out, value & 0xFFFF);
}

void AppendEntry(std::string* out, Tag tag, Type type, size_t count, size_t value_or_offset) {
  Append16(out, tag);
  Append16(out, type);
  Append32(out, static_cast<uint32_t>(count));
  Append32(out, static_cast<uint32_t>(value_or_offset));
}

std::string Utf16BigEndian(std::string_view utf8) {
  std::string out;
  for (size_t i = 0; i < utf8.size();) {
    UChar32 c;
    U8_NEXT(reinterpret_cast<const uint8_t*>(utf8.data()), i, utf8.size(), c);
    if (c < 0) c = 0xFFFD;
    if (c < 0x10000) {
      Append16(&out, static_cast<uint32_t>(c));
    } else {
      const uint32_t rest = static_cast<uint32_t>(c) - 0x10000;
      Append16(&out, 0xD800 | rest >> 10);
      Append16(&out, 0xDC00 | (rest & 0x3FF));
    }
  }
  return out;
}

std::string_view Find(const ImageText& text, std::string_view keyword) {
  for (const auto& [name, content] : text) {
    if (name == keyword) return content;
  }
  return {};
}

// A first directory with the model, which links to a second one with the comment. Empty strings are
// left out.
std::string Tiff(const std::string& model, const std::string& comment) {
  const size_t entries = (model.empty() ? 0 : 1) + (comment.empty() ? 0 : 1);
  const size_t model_at = kHeaderBytes + kCountBytes + entries * kEntryBytes + kLinkBytes;
  const size_t exif_at = model_at + model.size() + model.size() % 2;  // directories begin at words
  const size_t comment_at = exif_at + kCountBytes + kEntryBytes + kLinkBytes;
  std::string out("MM\0*", 4);
  Append32(&out, kHeaderBytes);
  Append16(&out, static_cast<uint32_t>(entries));
  if (!model.empty()) AppendEntry(&out, kModel, kAscii, model.size(), model_at);
  if (!comment.empty()) AppendEntry(&out, kExifIfd, kLong, 1, exif_at);
  Append32(&out, 0);
  out += model;
  out.resize(exif_at, '\0');
  if (comment.empty()) return out;
  Append16(&out, 1);
  AppendEntry(&out, kUserComment, kUndefined, comment.size(), comment_at);
  Append32(&out, 0);
  return out + comment;
}

}  // namespace

int ExifOrientation(std::string_view exif) {
  constexpr int kUpright = 1;
  const TiffReader tiff(exif);
  if (!tiff.valid()) return kUpright;
  const uint64_t directory = tiff.Read(4, 4).value_or(0);
  const uint32_t entries = tiff.Read(directory, 2).value_or(0);
  for (uint32_t i = 0; i < entries; ++i) {
    const uint64_t entry = directory + kCountBytes + i * kEntryBytes;
    if (tiff.Read(entry, 2) != kOrientation || tiff.Read(entry + 2, 2) != kShort) continue;
    const uint32_t value = tiff.Read(entry + 8, 2).value_or(0);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : kUpright;
  }
  return kUpright;
}

Image8 Oriented(Image8 image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const bool swapped = orientation >= 5;
  const bool from_right =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image8 result{.width = swapped ? image.height : image.width,
                .height = swapped ? image.width : image.height,
                .channels = image.channels,
                .pixels = std::vector<uint8_t>(image.pixels.size())};
  const auto channels = static_cast<size_t>(image.channels);
  uint8_t* to = result.pixels.data();
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x, to += channels) {
      const int u = swapped ? y : x, v = swapped ? x : y;
      const int column = from_right ? image.width - 1 - u : u;
      const int row = from_bottom ? image.height - 1 - v : v;
      const size_t pixel = static_cast<size_t>(row) * image.width + column;
      std::memcpy(to, image.pixels.data() + pixel * channels, channels);
    }
  }
  return result;
}

std::string ExifFromText(const ImageText& text, size_t max_bytes) {
  const std::string_view parameters = Find(text, "parameters"), prompt = Find(text, "prompt");
  std::string comment, model;
  if (!parameters.empty())
    comment = absl::StrCat(std::string_view("UNICODE\0", 8), Utf16BigEndian(parameters));
  if (!prompt.empty()) model = absl::StrCat("prompt:", prompt, std::string_view("\0", 1));
  for (const std::string& kept : {model, std::string()}) {
    if (kept.empty() && comment.empty()) break;
    std::string exif = Tiff(kept, comment);
    if (exif.size() <= max_bytes) return exif;
  }
  return "";
}

}  // namespace distorch
