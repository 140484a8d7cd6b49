#include "lib/models/diffusion_model.h"

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

}  // namespace

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

}  // namespace distorch::models
