#include "lib/nn/attention_kernel.h"

namespace distorch::nn {

#ifdef __x86_64__
extern const AttentionKernel kAttentionKernelAvx512, kAttentionKernelAvx2;

const AttentionKernel* FindAttentionKernel() {
  if (__builtin_cpu_supports("avx512f")) return &kAttentionKernelAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kAttentionKernelAvx2;
  return nullptr;
}
#else
const AttentionKernel* FindAttentionKernel() { return nullptr; }
#endif

}  // namespace distorch::nn
