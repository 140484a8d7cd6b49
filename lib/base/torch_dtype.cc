#include "lib/base/torch_dtype.h"

#include <c10/util/Exception.h>

namespace distorch {

c10::ScalarType ToScalarType(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return c10::ScalarType::Bool;
    case DType::kU8:
      return c10::ScalarType::Byte;
    case DType::kI8:
      return c10::ScalarType::Char;
    case DType::kI16:
      return c10::ScalarType::Short;
    case DType::kI32:
      return c10::ScalarType::Int;
    case DType::kI64:
      return c10::ScalarType::Long;
    case DType::kF8E4M3:
      return c10::ScalarType::Float8_e4m3fn;
    case DType::kF8E5M2:
      return c10::ScalarType::Float8_e5m2;
    case DType::kF16:
      return c10::ScalarType::Half;
    case DType::kBF16:
      return c10::ScalarType::BFloat16;
    case DType::kF32:
      return c10::ScalarType::Float;
    case DType::kF64:
      return c10::ScalarType::Double;
    default:
      return c10::ScalarType::Byte;
  }
}

DType ToDType(c10::ScalarType type) {
  for (const DType dtype :
       {DType::kF8E4M3, DType::kF8E5M2, DType::kF16, DType::kBF16, DType::kF32, DType::kF64}) {
    if (ToScalarType(dtype) == type) return dtype;
  }
  TORCH_CHECK(false, type, " is no type of weights");
}

bool IsFloating(DType dtype) { return c10::isFloatingType(ToScalarType(dtype)); }

}  // namespace distorch
