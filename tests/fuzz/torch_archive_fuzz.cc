// Any bytes as a PyTorch file, and any bytes as the pickle of one, in both formats: what is read
// lies in the file.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/base/utf8.h"
#include "lib/checkpoint/strided_tensor.h"
#include "lib/checkpoint/torch_archive.h"
#include "lib/checkpoint/torch_legacy.h"
#include "tests/fuzz/require.h"
#include "tests/support/torch_archive_writer.h"

namespace {

using distorch::Require;

constexpr uint64_t kReadBytes = 4096;  // at most, of a tensor with strides

using Reader = absl::StatusOr<distorch::TensorIndex> (*)(const distorch::ByteSource& file);

void Check(Reader reader, std::span<const std::byte> file) {
  const distorch::MemorySource source(file);
  const auto index = reader(source);
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
    if (tensor.strides.empty()) continue;
    std::vector<std::byte> bytes(std::min(tensor.bytes, kReadBytes));
    Require(distorch::ReadStrided(source, tensor, tensor.bytes - bytes.size(), bytes).ok());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Check(distorch::ReadTorchArchive, std::as_bytes(std::span(data, size)));
  Check(distorch::ReadTorchLegacy, std::as_bytes(std::span(data, size)));
  const std::string pickle(reinterpret_cast<const char*>(data), size);
  const std::string archive =
      distorch::ZipBytes(distorch::ArchiveMembers(pickle, {std::string(48, 'x')}));
  Check(distorch::ReadTorchArchive, std::as_bytes(std::span(archive)));
  const std::string legacy = distorch::LegacyFile(pickle, {std::string(48, 'x')}).Bytes();
  Check(distorch::ReadTorchLegacy, std::as_bytes(std::span(legacy)));
  return 0;
}
