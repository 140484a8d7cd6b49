// The GGUF format, versions 2 and 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//   "GGUF", version, number of tensors, number of metadata pairs
//   the metadata: key, type, value
//   the tensors: name, dimensions (the fastest first), type, offset from the data's start
//   the data, every tensor aligned to general.alignment (32)
// Diffusion models in it have the names that the reference has after "model.diffusion_model.".
#ifndef LIB_CHECKPOINT_GGUF_H_
#define LIB_CHECKPOINT_GGUF_H_

#include "absl/status/statusor.h"
#include "lib/checkpoint/byte_source.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {

// Shapes come out in PyTorch's order; a tensor that was reshaped to be quantized has the shape that
// "comfy.gguf.orig_shape.NAME" says, its blocks running over the elements in row-major order.
// Metadata: scalars and strings as text; arrays are left out.
//
// Input is hostile: every count and length is checked before it is used, time and memory are linear
// in what the file really holds. INVALID_ARGUMENT with what is wrong and where: another version, a
// cut header, counts or lengths past the file or our limits, nested arrays, duplicate names, an
// unknown or unsupported type, a row that is no whole number of blocks, an offset that is not
// aligned, tensors that overlap or end past the file.
absl::StatusOr<TensorIndex> ReadGguf(const ByteSource& file);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_GGUF_H_
