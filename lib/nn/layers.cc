#include "lib/nn/layers.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"

namespace distorch::nn {

Scope Scope::operator/(std::string_view child) const {
  return Scope(store_, name_.empty() ? std::string(child) : absl::StrCat(name_, ".", child));
}

Scope Scope::operator/(int64_t index) const { return *this / absl::StrCat(index); }

Linear::Linear(const Scope& scope, int64_t in, int64_t out, bool bias, IfMissing if_missing)
    : slot_(scope.store().Add(scope.name(), {out, in}, bias ? out : 0, if_missing)) {}

at::Tensor Linear::Forward(const at::Tensor& x) const {
  const WeightLease w = slot_->Acquire(x);
  return at::linear(x, w.weight(), w.bias());
}

Conv2d::Conv2d(const Scope& scope, int64_t in, int64_t out, Options options)
    : slot_(scope.store().Add(scope.name(), {out, in, options.kernel, options.kernel},
                              options.bias ? out : 0)),
      options_(options) {}

at::Tensor Conv2d::Forward(const at::Tensor& x) const {
  const WeightLease w = slot_->Acquire(x);
  return at::conv2d(x, w.weight(), w.bias(), options_.stride, options_.padding);
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
