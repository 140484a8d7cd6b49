// Attention of one head on the CPU, in float32: a kernel that keeps scores in the cache, as in
// "FlashAttention-2" (Dao, 2023) with its online softmax, and its products in registers. Compiled
// once for each instruction set; free of LibTorch.
#ifndef LIB_NN_ATTENTION_KERNEL_H_
#define LIB_NN_ATTENTION_KERNEL_H_

#include <cstdint>

namespace distorch::nn {

// One head of one item: rows of `width` floats each, a row every *_stride floats.
struct AttentionHead {
  const float* q;
  const float* k;
  const float* v;
  float* out;
  int64_t q_stride, k_stride, v_stride, out_stride;
  int64_t queries, keys;  // rows of q and out, of k and v; above 0
  int64_t width;          // a multiple of 8
  float scale;            // of the scores
};

// What a thread works with. `packed` holds a head's keys and values, PackedFloats of them;
// `scratch` is the thread's own, ScratchFloats of them. Both are aligned to 64 bytes.
struct AttentionKernel {
  int64_t (*PackedFloats)(int64_t keys, int64_t width);
  int64_t (*ScratchFloats)(int64_t width);
  // Brings keys and values into the order in which Attend reads them.
  void (*Pack)(const AttentionHead& head, float* packed);
  // out = softmax(scale · q kᵀ) v for the queries [begin, end), begin a multiple of kQueryBlock. A
  // row's result depends on that row, the keys and the values alone.
  void (*Attend)(const AttentionHead& head, const float* packed, int64_t begin, int64_t end,
                 float* scratch);
};

inline constexpr int64_t kQueryBlock = 96;  // queries of one task

// The kernel for this processor; nullptr when it has neither AVX-512 nor AVX2 with FMA.
const AttentionKernel* FindAttentionKernel();

}  // namespace distorch::nn

#endif  // LIB_NN_ATTENTION_KERNEL_H_
