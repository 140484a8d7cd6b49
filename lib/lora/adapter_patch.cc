#include "lib/lora/adapter_patch.h"

#include <ATen/ATen.h>

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/utf8.h"

namespace distorch::lora {
namespace {

// One norm for each index of dimension `dim`, broadcast to `weight`'s rank.
at::Tensor NormsAlong(const at::Tensor& weight, int64_t dim) {
  std::vector<int64_t> shape(static_cast<size_t>(weight.dim()), 1);
  shape[static_cast<size_t>(dim)] = weight.size(dim);
  return at::linalg_vector_norm(weight.transpose(0, dim).flatten(1), 2, {1}).reshape(shape);
}

// The weight that DoRA makes of `weight` and `change`.
at::Tensor Decompose(const at::Tensor& weight, const at::Tensor& change,
                     const at::Tensor& magnitude) {
  const bool by_row = magnitude.size(0) == weight.size(0);
  at::Tensor sum = weight + change;
  at::Tensor norms = by_row ? NormsAlong(weight, 0) : NormsAlong(sum, 1);
  norms.add_(std::numeric_limits<float>::epsilon());
  return sum.mul_(magnitude.reshape(norms.sizes()).div(norms));
}

}  // namespace

AdapterPatch::AdapterPatch(const Options& options, ByPart<at::Tensor> tensors)
    : options_(options), tensors_(std::move(tensors)) {}

at::Tensor AdapterPatch::Apply(at::Tensor parameter) const {
  const Rows& rows = options_.rows;
  Change(rows.count == 0 ? parameter : parameter.narrow(0, rows.first, rows.count));
  return parameter;
}

void AdapterPatch::Change(at::Tensor weight) const {
  ByPart<at::Tensor> tensors;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors_[i].defined()) tensors[i] = tensors_[i].to(weight.device()).to(at::kFloat);
  }
  at::Tensor change = options_.algorithm->change(tensors, weight).reshape(weight.sizes());
  if (options_.algorithm->replaces) {
    weight.copy_(change);
    return;
  }
  if (options_.rows.swapped_halves) {
    const std::vector<at::Tensor> halves = change.chunk(2, 0);
    change = at::cat({halves[1], halves[0]}, 0);
  }
  const at::Tensor& magnitude = tensors[static_cast<size_t>(Part::kDoraScale)];
  if (magnitude.defined()) {
    const at::Tensor decomposed = Decompose(weight, change * options_.scale, magnitude);
    weight.add_(decomposed.sub(weight), options_.strength);
  } else {
    weight.add_(change, options_.strength * options_.scale);
  }
}

absl::Status CheckMagnitude(const TensorInfo& magnitude, const std::vector<int64_t>& shape) {
  const int64_t count = magnitude.elements();
  const bool by_row =
      !magnitude.shape.empty() && magnitude.shape[0] == shape[0] && count == shape[0];
  const bool by_input = !magnitude.shape.empty() && magnitude.shape[0] != shape[0] &&
                        shape.size() > 1 && count == shape[1];
  if (by_row || by_input) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(Quoted(magnitude.name), " has shape ", ShapeString(magnitude.shape),
                   ", expected one magnitude for each row or each input of a weight of shape ",
                   ShapeString(shape)));
}

}  // namespace distorch::lora
