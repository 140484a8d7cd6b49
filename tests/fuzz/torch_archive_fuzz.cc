// Any bytes as a PyTorch archive, and any bytes as the pickle of one: what is read lies in the
// file.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "lib/base/utf8.h"
#include "lib/checkpoint/torch_archive.h"
#include "tests/fuzz/require.h"
#include "tests/support/torch_archive_writer.h"

namespace {

using distorch::Require;

void Check(std::span<const std::byte> file) {
  const auto index = distorch::ReadTorchArchive(distorch::MemorySource(file));
  if (!index.ok()) {
    const std::string message(index.status().message());
    Require(message.size() < 3000 && distorch::Utf8PrefixLength(message) == message.size());
    return;
  }
  for (const distorch::TensorInfo& tensor : index->tensors()) {
    Require(tensor.offset <= file.size() && tensor.bytes <= file.size() - tensor.offset);
    Require(tensor.bytes ==
            static_cast<uint64_t>(tensor.elements()) * distorch::DTypeSize(tensor.dtype));
    Require(index->Find(tensor.name) == &tensor);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Check(std::as_bytes(std::span(data, size)));
  const std::string pickle(reinterpret_cast<const char*>(data), size);
  const std::string archive =
      distorch::ZipBytes(distorch::ArchiveMembers(pickle, {std::string(48, 'x')}));
  Check(std::as_bytes(std::span(archive)));
  return 0;
}
