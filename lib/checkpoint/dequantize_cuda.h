// The border to the CUDA compiler: no LibTorch in the kernels, no CUDA in the rest. Where there is
// no CUDA toolkit to build with, dequantize_no_cuda.cc stands in.
#ifndef LIB_CHECKPOINT_DEQUANTIZE_CUDA_H_
#define LIB_CHECKPOINT_DEQUANTIZE_CUDA_H_

#include <cstdint>

#include "lib/base/dtype.h"

namespace distorch::cuda {

enum class Output { kFloat, kHalf, kBFloat16 };

// Whether this program has the kernels.
bool HasKernels();

// Starts the kernel on `stream` (a cudaStream_t) of `device`; both pointers are that device's and
// `dtype` is quantized. nullptr, or what CUDA says of the error.
const char* Dequantize(DType dtype, Output output, const void* encoded, int64_t elements, void* out,
                       int device, void* stream);

}  // namespace distorch::cuda

#endif  // LIB_CHECKPOINT_DEQUANTIZE_CUDA_H_
