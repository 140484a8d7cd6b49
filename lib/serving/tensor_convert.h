// Tensors across the border between the core's plain types and LibTorch.
#ifndef LIB_SERVING_TENSOR_CONVERT_H_
#define LIB_SERVING_TENSOR_CONVERT_H_

#include <ATen/core/Tensor.h>

#include <string_view>

#include "absl/status/statusor.h"
#include "lib/base/host_tensor.h"
#include "lib/serving/infer_spec.h"
#include "lib/text/conditioning.h"

namespace distorch {

// A float32 copy on the CPU. INVALID_ARGUMENT naming `field` when the type is no float, a dimension
// is below 1, there are not `rank` dimensions, the bytes do not match the shape, or a value is not
// finite.
absl::StatusOr<at::Tensor> ToTorch(std::string_view field, const HostTensor& tensor, size_t rank);

// Row-major float32 bytes.
HostTensor FromTorch(const at::Tensor& tensor);

absl::StatusOr<text::Conditioning> ToTorch(std::string_view field,
                                           const HostConditioning& conditioning);
HostConditioning FromTorch(const text::Conditioning& conditioning);

}  // namespace distorch

#endif  // LIB_SERVING_TENSOR_CONVERT_H_
