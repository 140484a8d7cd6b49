// Tensors whose elements do not lie row by row in their file: transposed matrices and slices, which
// PyTorch saves as views of their storage.
#ifndef LIB_CHECKPOINT_STRIDED_TENSOR_H_
#define LIB_CHECKPOINT_STRIDED_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "lib/checkpoint/byte_source.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {

// Row-major without gaps. The stride of a dimension of one element says nothing.
bool IsContiguous(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides);

// From a view's first element to its last, in elements; nullopt when that is more than 2^60. Sizes
// are positive, strides not negative.
std::optional<uint64_t> SpanOf(const std::vector<int64_t>& shape,
                               const std::vector<int64_t>& strides);

// Fills `out` with the contiguous form of `tensor`, which has strides, from the byte
// `offset_in_tensor` on; all of it is inside. What lies side by side in `file` is read at once.
absl::Status ReadStrided(const ByteSource& file, const TensorInfo& tensor,
                         uint64_t offset_in_tensor, std::span<std::byte> out);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_STRIDED_TENSOR_H_
