// Writes PyTorch's files for tests, right and wrong: zip archives, those of before PyTorch 1.6, and
// pickles put together of pieces.
#ifndef TESTS_SUPPORT_TORCH_ARCHIVE_WRITER_H_
#define TESTS_SUPPORT_TORCH_ARCHIVE_WRITER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace distorch {

// A member of a zip file; what is absent is as it should be.
struct ZipMember {
  std::string name, data;
  uint16_t method = 0, flags = 0;
  std::optional<uint64_t> size;           // as the directory says
  std::optional<uint64_t> header_offset;  // as the directory says
  std::optional<std::string> local_name;  // as the local header says
};

// With `zip64`, sizes and offsets are in 64-bit fields only.
std::string ZipBytes(const std::vector<ZipMember>& members, bool zip64 = false);

// Pieces of a protocol 2 pickle; each leaves one value on the stack.
namespace pickle {
std::string Text(std::string_view text);
std::string Int(int32_t value);
std::string Global(std::string_view module, std::string_view name);
std::string Tuple(const std::vector<std::string>& items);
std::string List(const std::vector<std::string>& items);
std::string Dict(const std::vector<std::string>& keys_and_values);
std::string Call(const std::string& function, const std::vector<std::string>& arguments);
// A float32 tensor in the storage `key` of `elements`.
std::string Tensor(std::string_view key, int32_t elements, int32_t offset,
                   const std::vector<int32_t>& shape, const std::vector<int32_t>& strides);
// The whole: the protocol's number, `root`, the end.
std::string Whole(const std::string& root);
}  // namespace pickle

// An archive of `pickle` and storages "0", "1", …
std::vector<ZipMember> ArchiveMembers(const std::string& pickle,
                                      const std::vector<std::string>& storages);

// The parts of a file of before PyTorch 1.6, in their order.
struct LegacyParts {
  std::string magic = std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  std::string protocol = pickle::Whole(pickle::Int(1001));
  std::string machine = pickle::Whole(pickle::Dict({pickle::Text("little_endian"), "\x88"}));
  std::string object, keys, storages;

  std::string Bytes() const { return magic + protocol + machine + object + keys + storages; }
};
// Of `object` and storages "0", "1", … of float32.
LegacyParts LegacyFile(const std::string& object, const std::vector<std::string>& storages);

}  // namespace distorch

#endif  // TESTS_SUPPORT_TORCH_ARCHIVE_WRITER_H_
