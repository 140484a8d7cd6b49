// A checkpoint's parameters under the reference's names, each a view of what the file holds.
#ifndef LIB_DISTORCH_NAMED_TENSOR_H_
#define LIB_DISTORCH_NAMED_TENSOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {

// Rows [first_row, first_row + rows) of a file's tensor along dimension 0: contiguous bytes.
struct TensorPiece {
  const TensorInfo* tensor = nullptr;
  int64_t first_row = 0;
  int64_t rows = 0;
};

// One parameter: pieces joined along dimension 0, so that layouts that cut or join matrices
// differently (OpenCLIP's in_proj, diffusers' to_q, to_k, to_v) are read without a copy. The pieces
// have one type.
struct NamedTensor {
  std::vector<int64_t> shape;  // of the whole
  DType dtype = DType::kF32;
  std::vector<TensorPiece> pieces;
  bool transposed = false;  // the one piece, of rank 2, is stored as its transpose

  NamedTensor() = default;
  // The whole of `tensor`, which must outlive it.
  explicit NamedTensor(const TensorInfo* tensor);
};

// By name, as the reference calls it ("diffusion_model.time_embed.0.weight"), whatever the file
// does. Points into a TensorIndex that must outlive it.
using NamedTensors = absl::flat_hash_map<std::string, NamedTensor>;

}  // namespace distorch

#endif  // LIB_DISTORCH_NAMED_TENSOR_H_
