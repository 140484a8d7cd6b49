// Element types of stored tensors: those of safetensors, and GGUF's quantized blocks.
#ifndef LIB_BASE_DTYPE_H_
#define LIB_BASE_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace distorch {

enum class DType {
  kBool,
  kU8,
  kI8,
  kI16,
  kI32,
  kI64,
  kF8E4M3,
  kF8E5M2,
  kF16,
  kBF16,
  kF32,
  kF64,
  // Blocks of quantized elements (lib/checkpoint/dequantize_blocks.h).
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
};

// How a type is stored: `elements` consecutive elements take `bytes`. One element for all but the
// quantized types.
struct DTypeBlock {
  std::size_t elements = 1;
  std::size_t bytes = 0;
};
DTypeBlock BlockOf(DType dtype);

// True for the types of blocks of more than one element.
bool IsQuantized(DType dtype);

// Bytes of one element; `dtype` must not be quantized.
std::size_t DTypeSize(DType dtype);

// Bytes of `elements` elements, a whole number of blocks; the caller has bounded them.
constexpr uint64_t BytesOf(DTypeBlock block, uint64_t elements) {
  return elements / block.elements * block.bytes;
}
inline uint64_t BytesOf(DType dtype, uint64_t elements) {
  return BytesOf(BlockOf(dtype), elements);
}

// "F16", "BF16", "F8_E4M3", … as in a safetensors header; "Q8_0", "IQ4_XS", … as GGUF's tools say.
std::string_view DTypeName(DType dtype);

// The inverse of DTypeName; nullopt for a name that is not one of ours.
std::optional<DType> ParseDType(std::string_view name);

}  // namespace distorch

#endif  // LIB_BASE_DTYPE_H_
