#include "lib/checkpoint/dequantize_cuda.h"

namespace distorch::cuda {

bool HasKernels() { return false; }

const char* Dequantize(DType, Output, const void*, int64_t, void*, int, void*) {
  return "this program was built without the CUDA toolkit";
}

}  // namespace distorch::cuda
