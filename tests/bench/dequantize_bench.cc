// Dequantization with all threads, beside a memcpy of as many bytes as it writes.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "lib/checkpoint/dequantize.h"

namespace distorch {
namespace {

constexpr int64_t kElements = 32 << 20;  // 128 MiB of float32: larger than any cache
constexpr int64_t kOutputBytes = kElements * static_cast<int64_t>(sizeof(float));

void BM_Memcpy(benchmark::State& state) {
  std::vector<char> from(kOutputBytes, 1), to(kOutputBytes, 2);
  for (auto _ : state) {
    at::parallel_for(0, kOutputBytes, 1 << 20, [&](int64_t begin, int64_t end) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
    });
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * kOutputBytes);
}
BENCHMARK(BM_Memcpy)->UseRealTime();

void BM_Dequantize(benchmark::State& state, DType dtype) {
  const auto bytes = static_cast<int64_t>(BytesOf(dtype, kElements));
  const at::Tensor blocks = at::randint(0, 256, {bytes}, at::kByte);
  at::Tensor out = at::empty({kElements}, at::kFloat);
  for (auto _ : state) {
    DequantizeInto(dtype, blocks, out);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * kOutputBytes);
}
BENCHMARK_CAPTURE(BM_Dequantize, Q4_0, DType::kQ4_0)->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, Q5_1, DType::kQ5_1)->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, Q8_0, DType::kQ8_0)->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, Q2_K, DType::kQ2_K)->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, Q3_K, DType::kQ3_K)->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, Q4_K, DType::kQ4_K)->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, Q5_K, DType::kQ5_K)->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, Q6_K, DType::kQ6_K)->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, IQ4_NL, DType::kIQ4_NL)->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, IQ4_XS, DType::kIQ4_XS)->UseRealTime();

}  // namespace
}  // namespace distorch
