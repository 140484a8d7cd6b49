#include "lib/nn/transformer_layers.h"

#include <ATen/ATen.h>

namespace distorch::nn {
namespace {

constexpr double kNormEps = 1e-6;

at::Tensor PadDimension(const at::Tensor& x, int64_t dim) {
  const int64_t missing = PatchCount(x.size(dim)) * kPatch - x.size(dim);
  return missing == 0 ? x : at::cat({x, x.narrow(dim, 0, missing)}, dim);
}

}  // namespace

RmsNorm::RmsNorm(const Scope& scope, int64_t width, double eps, std::string_view weight_name)
    : slot_(scope.store().Add(scope.name(), {width}, 0, IfMissing::kError,
                              /*has_bias_member=*/false, weight_name)),
      eps_(eps) {}

at::Tensor RmsNorm::Forward(const at::Tensor& x) const {
  const WeightLease w = slot_->Acquire(x);
  return at::rms_norm(x, w.weight().sizes(), w.weight(), eps_);
}

PlainLayerNorm::PlainLayerNorm(const Scope& scope) { scope.store().AddEmpty(scope.name()); }

at::Tensor PlainLayerNorm::Forward(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, {}, {}, kNormEps);
}

Mlp::Mlp(const Scope& first, const Scope& second, int64_t in, int64_t hidden, int64_t out,
         Activation activation)
    : first_(first, in, hidden), second_(second, hidden, out), activation_(activation) {}

at::Tensor Mlp::Forward(const at::Tensor& x) const {
  at::Tensor h = first_.Forward(x);
  if (activation_ == Activation::kSilu) {
    at::silu_(h);
  } else {
    at::gelu_(h, "tanh");
  }
  return second_.Forward(h);
}

Modulation::Modulation(const Scope& scope, int64_t width, int64_t count)
    : linear_(scope, width, count * width), count_(count) {}

std::vector<at::Tensor> Modulation::Forward(const at::Tensor& activated) const {
  return linear_.Forward(activated).unsqueeze(1).chunk(count_, -1);
}

at::Tensor Modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale) {
  return at::addcmul(shift, x, scale + 1);
}

FinalLayer::FinalLayer(const Scope& scope, int64_t width, int64_t out)
    : norm_(scope / "norm_final"),
      linear_(scope / "linear", width, out),
      modulation_(scope / "adaLN_modulation" / 1, width, 2) {}

at::Tensor FinalLayer::Forward(const at::Tensor& x, const at::Tensor& activated) const {
  const std::vector<at::Tensor> mod = modulation_.Forward(activated);
  return linear_.Forward(Modulate(norm_.Forward(x), mod[0], mod[1]));
}

at::Tensor PadToPatches(const at::Tensor& x) { return PadDimension(PadDimension(x, 2), 3); }

}  // namespace distorch::nn
