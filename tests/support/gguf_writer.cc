#include "tests/support/gguf_writer.h"

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

template <typename T>
std::string Number(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

constexpr uint32_t kU32 = 4, kI32 = 5, kString = 8, kArray = 9;

}  // namespace

std::string GgufString(std::string_view text) {
  return absl::StrCat(Number<uint64_t>(text.size()), text);
}

std::string GgufText(std::string_view key, std::string_view value) {
  return GgufString(key) + Number(kString) + GgufString(value);
}

std::string GgufU32(std::string_view key, uint32_t value) {
  return GgufString(key) + Number(kU32) + Number(value);
}

std::string GgufI32Array(std::string_view key, const std::vector<int32_t>& values) {
  std::string out =
      GgufString(key) + Number(kArray) + Number(kI32) + Number<uint64_t>(values.size());
  for (const int32_t value : values) out += Number(value);
  return out;
}

std::string GgufHeader(const std::vector<std::string>& metadata,
                       const std::vector<GgufTensor>& tensors,
                       const std::vector<uint64_t>& offsets) {
  std::string out = "GGUF";
  out += Number<uint32_t>(3) + Number<uint64_t>(tensors.size()) + Number<uint64_t>(metadata.size());
  for (const std::string& pair : metadata) out += pair;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::vector<int64_t>& shape = tensors[i].shape;
    out += GgufString(tensors[i].name) + Number(static_cast<uint32_t>(shape.size()));
    for (size_t d = shape.size(); d-- > 0;) out += Number(shape[d]);
    out += Number(tensors[i].type) + Number(offsets[i]);
  }
  return out;
}

std::string GgufBytes(const std::vector<std::string>& metadata,
                      const std::vector<GgufTensor>& tensors, uint64_t alignment) {
  const auto aligned = [&](uint64_t size) {
    return (size + alignment - 1) / alignment * alignment;
  };
  std::vector<uint64_t> offsets;
  uint64_t end = 0;
  for (const GgufTensor& tensor : tensors) {
    offsets.push_back(end);
    end = aligned(end + tensor.data.size());
  }
  std::string out = GgufHeader(metadata, tensors, offsets);
  for (const GgufTensor& tensor : tensors) {
    out.resize(aligned(out.size()), '\0');
    out += tensor.data;
  }
  return out;
}

}  // namespace distorch
