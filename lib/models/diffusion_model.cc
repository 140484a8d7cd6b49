#include "lib/models/diffusion_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace distorch::models {
namespace {

std::string Shape(const at::Tensor& tensor) { return ShapeString(tensor.sizes().vec()); }

absl::Status CheckBatch(std::string_view name, const at::Tensor& tensor, int64_t batch) {
  if (tensor.size(0) == batch || tensor.size(0) == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": batch is ", tensor.size(0), ", expected 1 or the latent's ", batch));
}

absl::Status CheckPooled(const at::Tensor& pooled, int64_t width, int64_t batch) {
  if (width == 0) return absl::OkStatus();
  if (!pooled.defined() || pooled.dim() != 2 || pooled.size(1) != width) {
    return absl::InvalidArgumentError(
        absl::StrCat("pooled: shape is ", pooled.defined() ? Shape(pooled) : "absent",
                     ", expected [batch, ", width, "] for this model"));
  }
  return CheckBatch("pooled", pooled, batch);
}

at::Tensor ToBatch(const at::Tensor& t, int64_t batch) {
  if (t.size(0) == batch) return t;
  std::vector<int64_t> sizes(static_cast<size_t>(t.dim()), -1);
  sizes[0] = batch;
  return t.expand(sizes);
}

}  // namespace

at::Tensor DiffusionModel::ToCompute(const at::Tensor& part, int64_t batch) const {
  return ToBatch(part.to(compute().device).to(compute().dtype), batch).contiguous();
}

at::Tensor DiffusionModel::Concat(const at::Tensor& x, const text::Conditioning& conditioning,
                                  const std::vector<float>& blank) const {
  if (conditioning.concat.defined()) return ToCompute(conditioning.concat, x.size(0));
  const at::Tensor values = at::tensor(blank, at::kFloat).view({1, -1, 1, 1});
  return values.to(x.device()).to(compute().dtype).expand({x.size(0), -1, x.size(2), x.size(3)});
}

absl::Status DiffusionModel::CheckConditioning(const text::Conditioning& conditioning,
                                               int64_t batch, int64_t height, int64_t width) const {
  const at::Tensor& context = conditioning.cross_attention;
  if (!context.defined() || context.dim() != 3 || context.size(1) < 1 ||
      context.size(2) != context_width()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cross_attention: shape is ", context.defined() ? Shape(context) : "absent",
                     ", expected [batch, tokens, ", context_width(), "] for this model"));
  }
  RETURN_IF_ERROR(CheckBatch("cross_attention", context, batch));
  if (conditioning.size && !std::isfinite(conditioning.size->aesthetic_score.value_or(0)))
    return absl::InvalidArgumentError("size.aesthetic_score: not a finite number");
  RETURN_IF_ERROR(CheckPooled(conditioning.pooled, pooled_width(), batch));
  if (std::max(height, width) > max_latent_side()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the latent is ", height, " x ", width, ", but this model has positions for ",
                     max_latent_side(), " x ", max_latent_side(), " at most"));
  }
  const at::Tensor& concat = conditioning.concat;
  if (!concat.defined()) return absl::OkStatus();
  if (concat_channels() == 0) {
    return absl::InvalidArgumentError("concat: this model takes none (only inpainting models do)");
  }
  if (concat.dim() != 4 || concat.size(1) != concat_channels() || concat.size(2) != height ||
      concat.size(3) != width) {
    return absl::InvalidArgumentError(absl::StrCat("concat: shape is ", Shape(concat),
                                                   ", expected [batch, ", concat_channels(), ", ",
                                                   height, ", ", width, "]"));
  }
  return CheckBatch("concat", concat, batch);
}

ModelShape ShapeOf(const WeightStore& store) {
  ModelShape shape;
  for (const auto& slot : store.slots()) {
    const std::vector<Param>& params = slot->params();
    shape.blocks.push_back(
        {slot->name(), params.empty() ? std::vector<int64_t>() : params[0].shape});
  }
  for (const auto& unit : store.units()) shape.units.push_back({unit->first_slot, unit->end_slot});
  return shape;
}

text::Conditioning DiffusionModel::Prepare(text::Conditioning conditioning, GuidanceSide /*side*/,
                                           int64_t /*height*/, int64_t /*width*/) const {
  for (at::Tensor* part : {&conditioning.cross_attention, &conditioning.pooled,
                           &conditioning.attention_mask, &conditioning.concat}) {
    if (part->defined()) *part = part->to(compute().device);
  }
  return conditioning;
}

}  // namespace distorch::models
