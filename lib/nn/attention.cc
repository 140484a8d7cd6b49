#include "lib/nn/attention.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "lib/base/parallel.h"
#include "lib/nn/attention_kernel.h"

namespace distorch::nn {
namespace {

at::Tensor LibTorchAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             int64_t heads, const std::optional<at::Tensor>& mask, bool causal) {
  auto split = [&](const at::Tensor& t) {
    return t.view({t.size(0), t.size(1), heads, t.size(2) / heads}).transpose(1, 2);
  };
  const at::Tensor out =
      at::scaled_dot_product_attention(split(q), split(k), split(v), mask, 0.0, causal);
  return out.transpose(1, 2).reshape({q.size(0), q.size(1), q.size(2)});
}

// The heads of a batch, one after another. T is `Scalar` to the kernel.
template <typename T, typename Scalar>
class CpuAttention {
 public:
  CpuAttention(const AttentionKernel<T>& kernel, const at::Tensor& q, const at::Tensor& k,
               const at::Tensor& v, int64_t heads)
      : kernel_(kernel),
        heads_(heads),
        batch_(q.size(0)),
        width_(q.size(2) / heads),
        q_(Rows(q)),
        k_(Rows(k)),
        v_(Rows(v)),
        out_(at::empty(q.sizes(), q.options())),
        packed_bytes_((kernel.PackedBytes(k.size(1), width_) + 63) / 64 * 64),
        packed_(at::empty({batch_ * heads * packed_bytes_}, at::kByte)) {}

  at::Tensor Run() {
    const int64_t blocks = (q_.size(1) + kQueryBlock - 1) / kQueryBlock;
    ParallelFor(0, batch_ * heads_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) kernel_.Pack(Head(i), Packed(i));
    });
    ParallelFor(0, batch_ * heads_ * blocks, 1, [&](int64_t begin, int64_t end) {
      const at::Tensor scratch = at::empty({kernel_.ScratchBytes(width_)}, at::kByte);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % blocks * kQueryBlock;
        kernel_.Attend(Head(i / blocks), Packed(i / blocks), first,
                       std::min(q_.size(1), first + kQueryBlock), scratch.mutable_data_ptr());
      }
    });
    return out_;
  }

 private:
  static at::Tensor Rows(const at::Tensor& t) { return t.stride(2) == 1 ? t : t.contiguous(); }

  AttentionHead<T> Head(int64_t i) const {
    const int64_t item = i / heads_, channel = i % heads_ * width_;
    const auto rows = [&](const at::Tensor& t) {
      return reinterpret_cast<const T*>(t.const_data_ptr<Scalar>()) + item * t.stride(0) + channel;
    };
    T* out = reinterpret_cast<T*>(out_.mutable_data_ptr<Scalar>());
    return {rows(q_),     rows(k_),
            rows(v_),     out + item * out_.stride(0) + channel,
            q_.stride(1), k_.stride(1),
            v_.stride(1), out_.stride(1),
            q_.size(1),   k_.size(1),
            width_,       static_cast<float>(1 / std::sqrt(static_cast<double>(width_)))};
  }

  void* Packed(int64_t i) const { return packed_.mutable_data_ptr<uint8_t>() + i * packed_bytes_; }

  const AttentionKernel<T>& kernel_;
  const int64_t heads_, batch_, width_;
  const at::Tensor q_, k_, v_, out_;
  const int64_t packed_bytes_;  // of one head, a multiple of 64
  const at::Tensor packed_;
};

at::Tensor AttentionOnCpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          int64_t heads) {
  if (q.size(2) / heads % 8 == 0 && q.numel() > 0 && k.numel() > 0) {
    const auto* floats = FindAttentionKernel<float>();
    if (q.scalar_type() == at::kFloat && floats != nullptr)
      return CpuAttention<float, float>(*floats, q, k, v, heads).Run();
    const auto* bfloats = FindAttentionKernel<Bfloat16Bits>();
    if (q.scalar_type() == at::kBFloat16 && bfloats != nullptr)
      return CpuAttention<Bfloat16Bits, at::BFloat16>(*bfloats, q, k, v, heads).Run();
  }
  return LibTorchAttention(q, k, v, heads, std::nullopt, false);
}

at::Tensor AttentionOnCuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t heads) {
  return LibTorchAttention(q, k, v, heads, std::nullopt, false);
}

// An operator of LibTorch's dispatcher, so that simulated devices run the CPU's kernel as they run
// every other.
TORCH_LIBRARY_FRAGMENT(distorch, library) {
  library.def("attention(Tensor q, Tensor k, Tensor v, int heads) -> Tensor");
  library.impl("attention", c10::DispatchKey::CPU, &AttentionOnCpu);
  library.impl("attention", c10::DispatchKey::CUDA, &AttentionOnCuda);
}

}  // namespace

at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                     const at::Tensor& mask, bool causal) {
  if (mask.defined() || causal) {
    return LibTorchAttention(
        q, k, v, heads, mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt, causal);
  }
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("distorch::attention", "")
                             .typed<decltype(AttentionOnCpu)>();
  return op.call(q, k, v, heads);
}

}  // namespace distorch::nn
