#include "lib/distorch/named_tensor.h"

namespace distorch {

NamedTensor::NamedTensor(const TensorInfo* tensor)
    : shape(tensor->shape),
      dtype(tensor->dtype),
      pieces{{tensor, 0, tensor->shape.empty() ? 1 : tensor->shape[0]}} {}

}  // namespace distorch
