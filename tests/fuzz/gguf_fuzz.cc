// Any bytes as a GGUF file: what is read lies in the file, apart from each other.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "lib/base/utf8.h"
#include "lib/checkpoint/gguf.h"
#include "tests/fuzz/require.h"

using distorch::Require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto index =
      distorch::ReadGguf(distorch::MemorySource(std::as_bytes(std::span(data, size))));
  if (!index.ok()) {
    const std::string message(index.status().message());
    Require(message.size() < 3000 && distorch::Utf8PrefixLength(message) == message.size());
    return 0;
  }
  uint64_t end = 0;
  for (const distorch::TensorInfo& tensor : index->tensors()) {
    Require(tensor.offset >= end && tensor.offset <= size && tensor.bytes <= size - tensor.offset);
    Require(tensor.bytes ==
            distorch::BytesOf(tensor.dtype, static_cast<uint64_t>(tensor.elements())));
    end = tensor.offset + tensor.bytes;
  }
  return 0;
}
