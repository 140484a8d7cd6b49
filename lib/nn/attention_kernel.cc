#include "lib/nn/attention_kernel.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace distorch::nn {

#ifdef __x86_64__
extern const AttentionKernel<float> kAttentionKernelAvx512, kAttentionKernelAvx2;
extern const AttentionKernel<Bfloat16Bits> kAttentionKernelAmx;

namespace {

// Intel's manual, volume 2, CPUID, leaf 7.
bool HasAmx() {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if ((edx & kAmxBf16) == 0 || (edx & kAmxTile) == 0) return false;
  if (!__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) return false;
  constexpr unsigned kAvx512Bf16 = 1u << 5;
  return (eax & kAvx512Bf16) != 0 && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}

// Linux gives a process the tiles' registers when it asks (Documentation/arch/x86/xstate.rst).
bool MayUseTiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

template <>
const AttentionKernel<float>* FindAttentionKernel<float>() {
  if (__builtin_cpu_supports("avx512f")) return &kAttentionKernelAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kAttentionKernelAvx2;
  return nullptr;
}

template <>
const AttentionKernel<Bfloat16Bits>* FindAttentionKernel<Bfloat16Bits>() {
  static const bool has_tiles = HasAmx() && MayUseTiles();
  return has_tiles ? &kAttentionKernelAmx : nullptr;
}
#else
template <>
const AttentionKernel<float>* FindAttentionKernel<float>() {
  return nullptr;
}

template <>
const AttentionKernel<Bfloat16Bits>* FindAttentionKernel<Bfloat16Bits>() {
  return nullptr;
}
#endif

}  // namespace distorch::nn
