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

void DequantizeBlocks(DType dtype, std::span<const std::byte> encoded, std::span<float> out) {
  blocks::VisitFormat(dtype, [&](auto format) { DecodeFast<decltype(format)>(encoded, out); });
}

}  // namespace distorch
