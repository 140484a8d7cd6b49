// Element types of stored tensors, named as safetensors names them.
#ifndef LIB_BASE_DTYPE_H_
#define LIB_BASE_DTYPE_H_

#include <cstddef>
#include <optional>
#include <string_view>

namespace distorch {

enum class DType { kBool, kU8, kI8, kI16, kI32, kI64, kF8E4M3, kF8E5M2, kF16, kBF16, kF32, kF64 };

// Bytes of one element.
std::size_t DTypeSize(DType dtype);

// "F16", "BF16", "F8_E4M3", … as in a safetensors header.
std::string_view DTypeName(DType dtype);

// The inverse of DTypeName; nullopt for a name that is not one of ours.
std::optional<DType> ParseDType(std::string_view name);

}  // namespace distorch

#endif  // LIB_BASE_DTYPE_H_
