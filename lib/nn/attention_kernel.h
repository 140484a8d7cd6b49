// Attention of one head on the CPU: kernels that keep scores in the cache, as in "FlashAttention-2"
// (Dao, 2023) with its online softmax, and their products in registers: in float32, and in bfloat16
// where the processor multiplies tiles (AMX). Each is compiled for its instruction set; all are
// free of LibTorch.
#ifndef LIB_NN_ATTENTION_KERNEL_H_
#define LIB_NN_ATTENTION_KERNEL_H_

#include <cstdint>

namespace distorch::nn {

using Bfloat16Bits = uint16_t;

// One head of one item: rows of `width` elements each, a row every *_stride elements.
template <typename T>
struct AttentionHead {
  const T* q;
  const T* k;
  const T* v;
  T* out;
  int64_t q_stride, k_stride, v_stride, out_stride;
  int64_t queries, keys;  // rows of q and out, of k and v; above 0
  int64_t width;          // a multiple of 8
  float scale;            // of the scores; above 0
};

// What a thread works with. `packed` holds a head's keys and values, PackedBytes of them;
// `scratch` is the thread's own, ScratchBytes of them. Both are aligned to 64 bytes.
template <typename T>
struct AttentionKernel {
  int64_t (*PackedBytes)(int64_t keys, int64_t width);
  int64_t (*ScratchBytes)(int64_t width);
  // Brings keys and values into the order in which Attend reads them.
  void (*Pack)(const AttentionHead<T>& head, void* packed);
  // out = softmax(scale · q kᵀ) v for the queries [begin, end), begin a multiple of kQueryBlock. A
  // row's result depends on that row, the keys and the values alone.
  void (*Attend)(const AttentionHead<T>& head, const void* packed, int64_t begin, int64_t end,
                 void* scratch);
};

inline constexpr int64_t kQueryBlock = 96;  // queries of one task

// The kernel for this processor; nullptr when it has none of the instruction sets: for float32
// AVX-512, or AVX2 with FMA; for bfloat16 AMX, which the kernel (Linux) has to grant as well.
template <typename T>
const AttentionKernel<T>* FindAttentionKernel();
template <>
const AttentionKernel<float>* FindAttentionKernel<float>();
template <>
const AttentionKernel<Bfloat16Bits>* FindAttentionKernel<Bfloat16Bits>();

}  // namespace distorch::nn

#endif  // LIB_NN_ATTENTION_KERNEL_H_
