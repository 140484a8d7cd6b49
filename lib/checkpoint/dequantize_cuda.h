// The border to the CUDA compiler: no LibTorch in the kernels, no CUDA in the rest. Where there is
// no CUDA toolkit to build with, dequantize_no_cuda.cc stands in.
#ifndef LIB_CHECKPOINT_DEQUANTIZE_CUDA_H_
#define LIB_CHECKPOINT_DEQUANTIZE_CUDA_H_

#include <cstdint>

namespace distorch::cuda {

// In the order of DType's quantized types, from Q4_0 on.
enum class Quantization {
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
enum class Output { kFloat, kHalf, kBFloat16 };

// Whether this program has the kernels.
bool HasKernels();

// Starts the kernel on `stream` (a cudaStream_t) of `device`; both pointers are that device's.
// nullptr, or what CUDA says of the error.
const char* Dequantize(Quantization quantization, Output output, const void* blocks,
                       int64_t elements, void* out, int device, void* stream);

}  // namespace distorch::cuda

#endif  // LIB_CHECKPOINT_DEQUANTIZE_CUDA_H_
