#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "lib/checkpoint/dequantize_blocks.h"
#include "lib/checkpoint/dequantize_cuda.h"

namespace distorch::cuda {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ void Store(float value, float* out) { *out = value; }
__device__ __forceinline__ void Store(float value, __half* out) { *out = __float2half_rn(value); }
__device__ __forceinline__ void Store(float value, __nv_bfloat16* out) {
  *out = __float2bfloat16_rn(value);
}

// A thread decodes a run into shared memory; together they store the runs, neighbours side by side.
template <typename Format, typename Out>
__global__ void DecodeKernel(const uint8_t* __restrict__ blocks, int64_t runs,
                             Out* __restrict__ out) {
  constexpr int kRun = Format::kRun, kRunsPerBlock = Format::kElements / kRun;
  __shared__ float decoded[kThreads][kRun + 1];  // the odd width spreads the runs over the banks
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads;
  const int64_t run = first + threadIdx.x;
  if (run < runs) {
    float values[kRun];
    Format::Run(blocks + run / kRunsPerBlock * Format::kBytes,
                static_cast<int>(run % kRunsPerBlock), values);
    for (int i = 0; i < kRun; ++i) decoded[threadIdx.x][i] = values[i];
  }
  __syncthreads();
  const int64_t count = (runs - first < kThreads ? runs - first : kThreads) * kRun;
  for (int i = threadIdx.x; i < count; i += kThreads) {
    Store(decoded[i / kRun][i % kRun], out + first * kRun + i);
  }
}

template <typename Format, typename Out>
void Launch(const void* blocks, int64_t elements, void* out, cudaStream_t stream) {
  const int64_t runs = elements / Format::kRun;
  const auto grid = static_cast<unsigned>((runs + kThreads - 1) / kThreads);
  DecodeKernel<Format, Out><<<grid, kThreads, 0, stream>>>(static_cast<const uint8_t*>(blocks),
                                                           runs, static_cast<Out*>(out));
}

template <typename Format>
void LaunchTo(Output output, const void* blocks, int64_t elements, void* out, cudaStream_t stream) {
  switch (output) {
    case Output::kFloat:
      return Launch<Format, float>(blocks, elements, out, stream);
    case Output::kHalf:
      return Launch<Format, __half>(blocks, elements, out, stream);
    case Output::kBFloat16:
      return Launch<Format, __nv_bfloat16>(blocks, elements, out, stream);
  }
}

}  // namespace

bool HasKernels() { return true; }

const char* Dequantize(DType dtype, Output output, const void* encoded,
                       int64_t elements, void* out, int device, void* stream) {
  if (elements == 0) return nullptr;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) {
    blocks::VisitFormat(dtype, [=](auto format) {
      LaunchTo<decltype(format)>(output, encoded, elements, out, static_cast<cudaStream_t>(stream));
    });
    error = cudaGetLastError();
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace distorch::cuda
