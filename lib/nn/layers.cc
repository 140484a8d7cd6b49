#include "lib/nn/layers.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "absl/strings/str_cat.h"
#include "lib/device/host_info.h"

namespace distorch::nn {
namespace {

// Blocks of channels have up to so many; there is no padding then, and packing takes no memory.
// Pointwise convolutions gain nothing.
constexpr int64_t kPackedChannels = 16;
constexpr int64_t kPackedFeatures = 64;

// oneDNN convolves with weights in blocks of channels, into which at::conv2d turns them at every
// call: for small maps that takes longer than the convolution. These are the operators that
// compiled graphs of LibTorch use to keep them so.
at::Tensor PackConv2dWeight(const at::Tensor& weight, const at::Tensor& x, int64_t stride,
                            int64_t padding) {
  static const auto reorder =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mkldnn::_reorder_convolution_weight", "")
          .typed<at::Tensor(const at::Tensor&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef,
                            int64_t, at::OptionalIntArrayRef)>();
  const int64_t strides[] = {stride, stride}, paddings[] = {padding, padding}, dilation[] = {1, 1};
  return reorder.call(weight, paddings, strides, dilation, 1, x.sizes());
}

at::Tensor PackedConv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        int64_t stride, int64_t padding) {
  static const auto convolve =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mkldnn::_convolution_pointwise", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                            at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t,
                            std::string_view, c10::List<std::optional<at::Scalar>>,
                            std::optional<std::string_view>)>();
  const int64_t strides[] = {stride, stride}, paddings[] = {padding, padding}, dilation[] = {1, 1};
  return convolve.call(x, weight, bias.defined() ? std::optional(bias) : std::nullopt, paddings,
                       strides, dilation, 1, "none", c10::List<std::optional<at::Scalar>>(), "");
}

// For matrices it is bfloat16 alone that gains: reordering takes as long as the product of some
// hundred rows, which the processor has instructions for.
at::Tensor PackLinearWeight(const at::Tensor& weight, int64_t rows) {
  static const auto reorder = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                                  .typed<at::Tensor(const at::Tensor&, std::optional<int64_t>)>();
  return reorder.call(weight, rows);
}

at::Tensor PackedLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  static const auto multiply =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                            std::string_view, c10::List<std::optional<at::Scalar>>,
                            std::optional<std::string_view>)>();
  return multiply.call(x, weight, bias.defined() ? std::optional(bias) : std::nullopt, "none",
                       c10::List<std::optional<at::Scalar>>(), "");
}

bool MultipliesWithOneDnn(const at::Tensor& x) {
  static const bool has_bfloat16 = ReadHostProcessor().has_bfloat16;
  return has_bfloat16 && x.is_cpu() && x.scalar_type() == at::kBFloat16 &&
         at::globalContext().userEnabledMkldnn();
}

// Whether at::conv2d convolves `x` with oneDNN, channels last; then the packed one gives its bits.
bool ConvolvesWithOneDnn(const at::Tensor& x) {
  constexpr int64_t kTiny = 20480;  // LibTorch's bound
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
         (x.size(0) > 1 || x.numel() > kTiny) && at::globalContext().userEnabledMkldnn() &&
         x.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
}

}  // namespace

Scope Scope::operator/(std::string_view child) const {
  return Scope(store_, name_.empty() ? std::string(child) : absl::StrCat(name_, ".", child));
}

Scope Scope::operator/(int64_t index) const { return *this / absl::StrCat(index); }

at::Tensor Dense(const at::Tensor& weight) {
  return weight.is_mkldnn() ? weight.to_dense() : weight;
}

Linear::Linear(const Scope& scope, int64_t in, int64_t out, bool bias, IfMissing if_missing)
    : slot_(scope.store().Add(scope.name(), {out, in}, bias ? out : 0, if_missing)),
      packable_(in % kPackedFeatures == 0 && out % kPackedFeatures == 0) {}

at::Tensor Linear::Forward(const at::Tensor& x) const {
  if (!packable_ || !MultipliesWithOneDnn(x)) {
    const WeightLease w = slot_->Acquire(x);
    return at::linear(x, Dense(w.weight()), w.bias());
  }
  const WeightLease w = slot_->AcquirePacked(x, [&](const at::Tensor& weight) {
    return PackLinearWeight(weight, x.numel() / x.size(-1));
  });
  if (!w.weight().is_mkldnn()) return at::linear(x, w.weight(), w.bias());
  return PackedLinear(x, w.weight(), w.bias());
}

Conv2d::Conv2d(const Scope& scope, int64_t in, int64_t out, Options options)
    : slot_(scope.store().Add(scope.name(), {out, in, options.kernel, options.kernel},
                              options.bias ? out : 0)),
      options_(options),
      packable_(options.kernel > 1 && in % kPackedChannels == 0 && out % kPackedChannels == 0) {}

at::Tensor Conv2d::Forward(const at::Tensor& x) const {
  if (!packable_ || !ConvolvesWithOneDnn(x)) {
    const WeightLease w = slot_->Acquire(x);
    const at::Tensor y =
        at::conv2d(x, Dense(w.weight()), w.bias(), options_.stride, options_.padding);
    return y.contiguous(x.suggest_memory_format());  // of tiny maps LibTorch forgets it
  }
  const WeightLease w = slot_->AcquirePacked(x, [&](const at::Tensor& weight) {
    return PackConv2dWeight(weight, x, options_.stride, options_.padding);
  });
  if (!w.weight().is_mkldnn())
    return at::conv2d(x, w.weight(), w.bias(), options_.stride, options_.padding);
  return PackedConv2d(x, w.weight(), w.bias(), options_.stride, options_.padding);
}

at::Tensor PixelsToTokens(const at::Tensor& map) {
  return map.flatten(2).transpose(1, 2).contiguous();
}

at::Tensor TokensToPixels(const at::Tensor& tokens, int64_t height, int64_t width) {
  // Not of the transposed tokens: a single map's strides would then not tell its memory format.
  return tokens.reshape({tokens.size(0), height, width, tokens.size(2)}).permute({0, 3, 1, 2});
}

GroupNorm::GroupNorm(const Scope& scope, int64_t channels, double eps, int64_t groups)
    : slot_(scope.store().Add(scope.name(), {channels}, channels)), groups_(groups), eps_(eps) {}

at::Tensor GroupNorm::Forward(const at::Tensor& x) const {
  const WeightLease w = slot_->Acquire(x);
  return at::group_norm(x, groups_, w.weight(), w.bias(), eps_);
}

LayerNorm::LayerNorm(const Scope& scope, int64_t width, double eps)
    : slot_(scope.store().Add(scope.name(), {width}, width)), width_(width), eps_(eps) {}

at::Tensor LayerNorm::Forward(const at::Tensor& x) const {
  const WeightLease w = slot_->Acquire(x);
  return at::layer_norm(x, {width_}, w.weight(), w.bias(), eps_);
}

Embedding::Embedding(const Scope& scope, int64_t count, int64_t width)
    : slot_(scope.store().Add(scope.name(), {count, width}, 0)), count_(count) {}

at::Tensor Embedding::Forward(const at::Tensor& ids, at::ScalarType dtype) const {
  const WeightLease w = slot_->Acquire(ids.device(), dtype);
  return at::embedding(w.weight(), ids);
}

}  // namespace distorch::nn
