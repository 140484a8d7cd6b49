#include "lib/checkpoint/dequantize_host.h"

#include "lib/checkpoint/dequantize_blocks.h"

namespace distorch {
namespace {

template <typename Format>
inline __attribute__((always_inline)) void Decode(const uint8_t* __restrict__ block, size_t count,
                                                  float* __restrict__ out) {
  for (size_t i = 0; i < count; ++i, block += Format::kBytes) {
    for (int run = 0; run < Format::kElements / Format::kRun; ++run, out += Format::kRun) {
      Format::Run(block, run, out);
    }
  }
}

#if defined(__x86_64__)
template <typename Format>
__attribute__((target("avx2"))) void DecodeAvx2(const uint8_t* blocks, size_t count, float* out) {
  Decode<Format>(blocks, count, out);
}

bool HasAvx2() {
  static const bool has = __builtin_cpu_supports("avx2");
  return has;
}
#endif

template <typename Format>
void DecodeFast(std::span<const std::byte> blocks, std::span<float> out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(blocks.data());
  const size_t count = out.size() / Format::kElements;
#if defined(__x86_64__)
  if (HasAvx2()) return DecodeAvx2<Format>(bytes, count, out.data());
#endif
  Decode<Format>(bytes, count, out.data());
}

}  // namespace

void DequantizeBlocks(DType dtype, std::span<const std::byte> blocks, std::span<float> out) {
  switch (dtype) {
    case DType::kQ4_0:
      return DecodeFast<blocks::Q4_0>(blocks, out);
    case DType::kQ4_1:
      return DecodeFast<blocks::Q4_1>(blocks, out);
    case DType::kQ5_0:
      return DecodeFast<blocks::Q5_0>(blocks, out);
    case DType::kQ5_1:
      return DecodeFast<blocks::Q5_1>(blocks, out);
    case DType::kQ8_0:
      return DecodeFast<blocks::Q8_0>(blocks, out);
    case DType::kQ2_K:
      return DecodeFast<blocks::Q2_K>(blocks, out);
    case DType::kQ3_K:
      return DecodeFast<blocks::Q3_K>(blocks, out);
    case DType::kQ4_K:
      return DecodeFast<blocks::Q4_K>(blocks, out);
    case DType::kQ5_K:
      return DecodeFast<blocks::Q5_K>(blocks, out);
    case DType::kQ6_K:
      return DecodeFast<blocks::Q6_K>(blocks, out);
    case DType::kIQ4_NL:
      return DecodeFast<blocks::IQ4_NL>(blocks, out);
    case DType::kIQ4_XS:
      return DecodeFast<blocks::IQ4_XS>(blocks, out);
    default:
      return;  // not quantized
  }
}

}  // namespace distorch
