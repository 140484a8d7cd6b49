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
  std::string text;
  int code = Z_OK;
  for (int64_t lines = 0; code == Z_OK && lines < count;) {
    constexpr size_t kStep = 1 << 16;
    const size_t old_size = text.size();
    text.resize(old_size + kStep);
    stream.next_out = reinterpret_cast<Bytef*>(text.data() + old_size);
    stream.avail_out = kStep;
    code = inflate(&stream, Z_NO_FLUSH);
    text.resize(text.size() - stream.avail_out);
    lines += std::count(text.begin() + old_size, text.end(), '\n');
  }
  inflateEnd(&stream);
  if (code != Z_OK && code != Z_STREAM_END) {
    return absl::InvalidArgumentError(absl::StrCat("not a whole gzip file: zlib code ", code));
  }
  return text;
}

}  // namespace distorch::text
