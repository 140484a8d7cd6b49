#include "lib/checkpoint/dequantize.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <optional>
#include <vector>

#include "lib/base/parallel.h"
#include "lib/checkpoint/dequantize_cuda.h"
#include "lib/checkpoint/dequantize_host.h"

namespace distorch {
namespace {

// What a thread takes at a time: small enough to stay in its cache until it is converted.
constexpr int64_t kChunkElements = 32 << 10;

std::optional<cuda::Output> CudaOutput(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return cuda::Output::kFloat;
    case at::kHalf:
      return cuda::Output::kHalf;
    case at::kBFloat16:
      return cuda::Output::kBFloat16;
    default:
      return std::nullopt;
  }
}

void DequantizeOnHost(DType dtype, const std::byte* blocks, const at::Tensor& out) {
  const DTypeBlock block = BlockOf(dtype);
  const int64_t count = out.numel();
  auto* const data = static_cast<char*>(out.mutable_data_ptr());
  const auto item = static_cast<int64_t>(out.element_size());
  const int64_t chunks = (count + kChunkElements - 1) / kChunkElements;
  ParallelFor(0, chunks, 1, [&](int64_t first, int64_t last) {
    std::vector<float> buffer;
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * kChunkElements;
      const int64_t size = std::min(kChunkElements, count - begin);
      const std::span source(blocks + BytesOf(block, static_cast<uint64_t>(begin)),
                             BytesOf(block, static_cast<uint64_t>(size)));
      if (out.scalar_type() == at::kFloat) {
        DequantizeBlocks(dtype, source,
                         {reinterpret_cast<float*>(data) + begin, static_cast<size_t>(size)});
        continue;
      }
      buffer.resize(static_cast<size_t>(size));
      DequantizeBlocks(dtype, source, buffer);
      at::from_blob(data + begin * item, {size}, at::TensorOptions().dtype(out.scalar_type()))
          .copy_(at::from_blob(buffer.data(), {size}, at::TensorOptions().dtype(at::kFloat)));
    }
  });
}

void DequantizeOnCuda(DType dtype, const at::Tensor& blocks, const at::Tensor& out,
                      cuda::Output output) {
  const c10::Device device = blocks.device();
  const c10::impl::VirtualGuardImpl guard(device.type());
  const char* error =
      cuda::Dequantize(dtype, output, blocks.const_data_ptr(), out.numel(), out.mutable_data_ptr(),
                       device.index(), guard.getStreamNativeHandle(guard.getStream(device)));
  TORCH_CHECK(error == nullptr, "CUDA error: ", error);
}

}  // namespace

void DequantizeInto(DType dtype, const at::Tensor& blocks, at::Tensor& out) {
  TORCH_CHECK(IsQuantized(dtype) && out.is_contiguous() && blocks.is_contiguous() &&
                  blocks.nbytes() == BytesOf(dtype, static_cast<uint64_t>(out.numel())),
              blocks.nbytes(), " bytes are not the blocks of ", out.numel(), " elements");
  TORCH_CHECK(blocks.device() == out.device(), "blocks on ", blocks.device(), ", result on ",
              out.device());
  if (!blocks.is_cuda()) {
    return DequantizeOnHost(dtype, static_cast<const std::byte*>(blocks.const_data_ptr()), out);
  }
  if (!cuda::HasKernels()) {
    out.copy_(Dequantize(dtype, blocks.cpu(), out.sizes(), out.scalar_type()));
  } else if (const auto output = CudaOutput(out.scalar_type()); output) {
    DequantizeOnCuda(dtype, blocks, out, *output);
  } else {
    out.copy_(Dequantize(dtype, blocks, out.sizes(), at::kFloat));
  }
}

at::Tensor Dequantize(DType dtype, const at::Tensor& blocks, at::IntArrayRef shape,
                      at::ScalarType type) {
  at::Tensor out = at::empty(shape, blocks.options().dtype(type));
  DequantizeInto(dtype, blocks, out);
  return out;
}

}  // namespace distorch
