// Multi-head attention over token sequences.
#ifndef LIB_NN_ATTENTION_H_
#define LIB_NN_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace distorch::nn {

/// softmax(q kᵀ / sqrt(d) + mask) v for [N, T, heads·d] inputs; `mask` broadcasts to [N, heads, Tq,
/// Tk] or is undefined. On CPUs, float32 and bfloat16 without a mask run in this project's kernels
/// where there is one for the processor (lib/nn/attention_kernel.h), everything else in LibTorch's.
/// Throws as LibTorch does.
at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                     const at::Tensor& mask = {}, bool causal = false);

}  // namespace distorch::nn

#endif  // LIB_NN_ATTENTION_H_
