// Quantized blocks to float32 on the CPU.
#ifndef LIB_CHECKPOINT_DEQUANTIZE_HOST_H_
#define LIB_CHECKPOINT_DEQUANTIZE_HOST_H_

#include <cstddef>
#include <span>

#include "lib/base/dtype.h"

namespace distorch {

// `blocks` holds whole blocks of the quantized `dtype`, as many as `out` has elements. One thread;
// several may share a tensor's blocks among them. Vector instructions where the processor has them,
// with the same results.
void DequantizeBlocks(DType dtype, std::span<const std::byte> blocks, std::span<float> out);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_DEQUANTIZE_HOST_H_
