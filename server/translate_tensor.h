// Tensors of the wire and of the core.
#ifndef SERVER_TRANSLATE_TENSOR_H_
#define SERVER_TRANSLATE_TENSOR_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "lib/base/host_tensor.h"
#include "proto/distorch.pb.h"

namespace distorch {

// INVALID_ARGUMENT starting with `field` unless the dtype is a float one, the shape has 1 to 8
// dimensions of at least 1, the data is exactly as long as they say, and every number is finite.
absl::StatusOr<HostTensor> ToFloatTensor(const v1::Tensor& tensor, std::string_view field);
// The same, but integer dtypes are allowed too (attention masks).
absl::StatusOr<HostTensor> ToAnyTensor(const v1::Tensor& tensor, std::string_view field);

// Takes the data over. The core answers in dtypes that the wire has.
void ToProto(HostTensor tensor, v1::Tensor* out);

}  // namespace distorch

#endif  // SERVER_TRANSLATE_TENSOR_H_
