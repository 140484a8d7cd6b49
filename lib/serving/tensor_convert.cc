#include "lib/serving/tensor_convert.h"

#include <ATen/ATen.h>

#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_dtype.h"
#include "lib/base/torch_status.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {
namespace {

absl::Status Bad(std::string_view field, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", problem));
}

absl::Status CheckShape(std::string_view field, const HostTensor& tensor, size_t rank) {
  if (tensor.shape.size() != rank) {
    return Bad(field, absl::StrCat("shape is ", ShapeString(tensor.shape), ", expected ", rank,
                                   " dimensions"));
  }
  uint64_t bytes = DTypeSize(tensor.dtype);
  for (int64_t dim : tensor.shape) {
    if (dim < 1)
      return Bad(field, absl::StrCat("shape is ", ShapeString(tensor.shape),
                                     ", expected dimensions of 1 or more"));
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes))
      return Bad(field, "shape overflows");
  }
  if (bytes == tensor.data.size()) return absl::OkStatus();
  return Bad(field, absl::StrCat("data has ", tensor.data.size(), " bytes, but shape ",
                                 ShapeString(tensor.shape), " of ", DTypeName(tensor.dtype),
                                 " needs ", bytes));
}

// Converts an optional part of a conditioning.
absl::Status Convert(const std::string& field, const std::optional<HostTensor>& from, size_t rank,
                     at::Tensor* to) {
  if (!from) return absl::OkStatus();
  ASSIGN_OR_RETURN(*to, ToTorch(field, *from, rank));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<at::Tensor> ToTorch(std::string_view field, const HostTensor& tensor, size_t rank) {
  RETURN_IF_ERROR(CheckShape(field, tensor, rank));
  if (!IsFloating(tensor.dtype)) {
    return Bad(field, absl::StrCat("dtype is ", DTypeName(tensor.dtype),
                                   ", expected a floating-point type"));
  }
  return RunTorchOr<at::Tensor>([&]() -> absl::StatusOr<at::Tensor> {
    const at::Tensor view =
        at::from_blob(const_cast<char*>(tensor.data.data()), tensor.shape,  // only read
                      at::TensorOptions().dtype(ToScalarType(tensor.dtype)));
    at::Tensor copy = at::empty(tensor.shape, at::kFloat).copy_(view);
    if (!at::isfinite(copy).all().item<bool>()) return Bad(field, "has values that are not finite");
    return copy;
  });
}

HostTensor FromTorch(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU).to(at::kFloat).contiguous();
  HostTensor result;
  result.dtype = DType::kF32;
  result.shape = host.sizes().vec();
  result.data.assign(static_cast<const char*>(host.const_data_ptr()), host.nbytes());
  return result;
}

absl::StatusOr<text::Conditioning> ToTorch(std::string_view field,
                                           const HostConditioning& conditioning) {
  text::Conditioning result;
  const auto name = [&](std::string_view part) { return absl::StrCat(field, ".", part); };
  ASSIGN_OR_RETURN(result.cross_attention,
                   ToTorch(name("cross_attention"), conditioning.cross_attention, 3));
  RETURN_IF_ERROR(Convert(name("pooled"), conditioning.pooled, 2, &result.pooled));
  RETURN_IF_ERROR(
      Convert(name("attention_mask"), conditioning.attention_mask, 2, &result.attention_mask));
  RETURN_IF_ERROR(Convert(name("concat"), conditioning.concat, 4, &result.concat));
  if (const auto& size = conditioning.size) {
    result.size = text::SizeConditioning{
        size->width,        size->height,        size->crop_w,         size->crop_h,
        size->target_width, size->target_height, size->aesthetic_score};
  }
  result.guidance = conditioning.guidance;
  return result;
}

HostConditioning FromTorch(const text::Conditioning& conditioning) {
  HostConditioning result;
  const auto convert = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::optional<HostTensor>(FromTorch(tensor)) : std::nullopt;
  };
  result.cross_attention = FromTorch(conditioning.cross_attention);
  result.pooled = convert(conditioning.pooled);
  result.attention_mask = convert(conditioning.attention_mask);
  result.concat = convert(conditioning.concat);
  if (const auto& size = conditioning.size) {
    result.size = HostSizeConditioning{
        size->width,        size->height,        size->crop_w,         size->crop_h,
        size->target_width, size->target_height, size->aesthetic_score};
  }
  result.guidance = conditioning.guidance;
  return result;
}

}  // namespace distorch
