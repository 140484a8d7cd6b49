// Any bytes as a safetensors file, and any bytes as the header of one: what parses obeys the
// format.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "lib/base/utf8.h"
#include "lib/checkpoint/safetensors.h"
#include "tests/fuzz/require.h"

namespace {

using distorch::Require;

void Check(std::span<const std::byte> file) {
  const auto parsed = distorch::ParseSafetensorsHeader(file);
  if (!parsed.ok()) {
    const std::string message(parsed.status().message());
    Require(message.size() < 3000 && distorch::Utf8PrefixLength(message) == message.size());
    return;
  }
  uint64_t end = parsed->data_start;
  for (const distorch::TensorInfo& tensor : parsed->index.tensors()) {
    Require(tensor.offset == end);
    Require(tensor.bytes ==
            static_cast<uint64_t>(tensor.elements()) * distorch::DTypeSize(tensor.dtype));
    Require(parsed->index.Find(tensor.name) == &tensor);
    end += tensor.bytes;
  }
  Require(end == file.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Check(std::as_bytes(std::span(data, size)));
  // As the header, before as many bytes of data as its first byte past '{' says.
  const uint64_t length = size;
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  file.append(reinterpret_cast<const char*>(data), size);
  file.append(size > 2 ? data[2] % 32 : 0, '\0');
  Check(std::as_bytes(std::span(file)));
  return 0;
}
