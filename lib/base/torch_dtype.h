// Stored element types as LibTorch's.
#ifndef LIB_BASE_TORCH_DTYPE_H_
#define LIB_BASE_TORCH_DTYPE_H_

#include <c10/core/ScalarType.h>

#include "lib/base/dtype.h"

namespace distorch {

// Quantized blocks are Byte: their bytes as they are stored.
c10::ScalarType ToScalarType(DType dtype);

// The inverse for the types weights are converted between.
DType ToDType(c10::ScalarType type);

// True for the types weights are converted between: F8, F16, BF16, F32, F64.
bool IsFloating(DType dtype);

}  // namespace distorch

#endif  // LIB_BASE_TORCH_DTYPE_H_
