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

// The heads of a batch, one after another.
class CpuAttention {
 public:
  CpuAttention(const AttentionKernel& kernel, const at::Tensor& q, const at::Tensor& k,
               const at::Tensor& v, int64_t heads)
      : kernel_(kernel),
        heads_(heads),
        batch_(q.size(0)),
        width_(q.size(2) / heads),
        q_(Rows(q)),
        k_(Rows(k)),
        v_(Rows(v)),
        out_(at::empty(q.sizes(), q.options())),
        packed_floats_((kernel.PackedFloats(k.size(1), width_) + 15) / 16 * 16),
        packed_(at::empty({batch_ * heads * packed_floats_}, q.options())) {}

  at::Tensor Run() {
    const int64_t blocks = (q_.size(1) + kQueryBlock - 1) / kQueryBlock;
    ParallelFor(0, batch_ * heads_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) kernel_.Pack(Head(i), Packed(i));
    });
    ParallelFor(0, batch_ * heads_ * blocks, 1, [&](int64_t begin, int64_t end) {
      const at::Tensor scratch = at::empty({kernel_.ScratchFloats(width_)}, q_.options());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % blocks * kQueryBlock;
        kernel_.Attend(Head(i / blocks), Packed(i / blocks), first,
                       std::min(q_.size(1), first + kQueryBlock),
                       scratch.mutable_data_ptr<float>());
      }
    });
    return out_;
  }

 private:
  static at::Tensor Rows(const at::Tensor& t) { return t.stride(2) == 1 ? t : t.contiguous(); }

  AttentionHead Head(int64_t i) const {
    const int64_t item = i / heads_, channel = i % heads_ * width_;
    const auto rows = [&](const at::Tensor& t) {
      return t.const_data_ptr<float>() + item * t.stride(0) + channel;
    };
    return {rows(q_),     rows(k_),
            rows(v_),     out_.mutable_data_ptr<float>() + item * out_.stride(0) + channel,
            q_.stride(1), k_.stride(1),
            v_.stride(1), out_.stride(1),
            q_.size(1),   k_.size(1),
            width_,       static_cast<float>(1 / std::sqrt(static_cast<double>(width_)))};
  }

  float* Packed(int64_t i) const { return packed_.mutable_data_ptr<float>() + i * packed_floats_; }

  const AttentionKernel& kernel_;
  const int64_t heads_, batch_, width_;
  const at::Tensor q_, k_, v_, out_;
  const int64_t packed_floats_;  // of one head, a multiple of 64 bytes
  const at::Tensor packed_;
};

at::Tensor AttentionOnCpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          int64_t heads) {
  const AttentionKernel* kernel = FindAttentionKernel();
  const bool fits =
      q.scalar_type() == at::kFloat && q.size(2) / heads % 8 == 0 && q.numel() > 0 && k.numel() > 0;
  if (kernel == nullptr || !fits) return LibTorchAttention(q, k, v, heads, std::nullopt, false);
  return CpuAttention(*kernel, q, k, v, heads).Run();
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
