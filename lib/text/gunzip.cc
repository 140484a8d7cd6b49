#include "lib/text/gunzip.h"

#include <zlib.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace distorch::text {

absl::StatusOr<std::string> GunzipLines(std::string_view gz, int64_t count) {
  z_stream stream = {};
  constexpr int kGzip = 16;
  if (inflateInit2(&stream, kGzip + MAX_WBITS) != Z_OK) {
    return absl::ResourceExhaustedError("zlib cannot start");
  }
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(gz.data()));
  stream.avail_in = static_cast<uInt>(gz.size());
  std::string text, piece(1 << 16, '\0');
  int code = Z_OK;
  for (int64_t lines = 0; code == Z_OK && lines < count;) {
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    code = inflate(&stream, Z_NO_FLUSH);
    const std::string_view got(piece.data(), piece.size() - stream.avail_out);
    lines += std::count(got.begin(), got.end(), '\n');
    text += got;
  }
  inflateEnd(&stream);
  if (code != Z_OK && code != Z_STREAM_END) {
    return absl::InvalidArgumentError(absl::StrCat("not a whole gzip file: zlib code ", code));
  }
  return text;
}

}  // namespace distorch::text
