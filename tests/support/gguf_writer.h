// Writes GGUF files for tests, right and wrong.
#ifndef TESTS_SUPPORT_GGUF_WRITER_H_
#define TESTS_SUPPORT_GGUF_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace distorch {

// A tensor: its type's number in GGUF, shape in PyTorch's order.
struct GgufTensor {
  std::string name;
  uint32_t type = 0;
  std::vector<int64_t> shape;
  std::string data;
};

// A length of 64 bits and the text.
std::string GgufString(std::string_view text);
// Pairs of metadata.
std::string GgufText(std::string_view key, std::string_view value);
std::string GgufU32(std::string_view key, uint32_t value);
std::string GgufI32Array(std::string_view key, const std::vector<int32_t>& values);

// A version 3 file. The tensors' data follow each other, each aligned.
std::string GgufBytes(const std::vector<std::string>& metadata,
                      const std::vector<GgufTensor>& tensors, uint64_t alignment = 32);
// The same with the offsets as given.
std::string GgufHeader(const std::vector<std::string>& metadata,
                       const std::vector<GgufTensor>& tensors,
                       const std::vector<uint64_t>& offsets);

}  // namespace distorch

#endif  // TESTS_SUPPORT_GGUF_WRITER_H_
