// Quantized blocks to tensors, on the device where the blocks are.
#ifndef LIB_CHECKPOINT_DEQUANTIZE_H_
#define LIB_CHECKPOINT_DEQUANTIZE_H_

#include <ATen/core/Tensor.h>

#include "lib/base/dtype.h"

namespace distorch {

// `blocks` holds the bytes of whole blocks of the quantized `dtype` (uint8), `out` as many
// elements, contiguous, of any floating type, on the same device: the arithmetic is float32's, the
// result is rounded once. On the CPU with all of LibTorch's threads; a simulated device is host
// memory; CUDA on the current stream. Throws as LibTorch does.
void DequantizeInto(DType dtype, const at::Tensor& blocks, at::Tensor& out);

// The same into a new tensor.
at::Tensor Dequantize(DType dtype, const at::Tensor& blocks, at::IntArrayRef shape,
                      at::ScalarType type);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_DEQUANTIZE_H_
