// What a checkpoint's header says: every tensor's name, type, shape and place in the file. Nothing
// is loaded.
#ifndef LIB_CHECKPOINT_TENSOR_INDEX_H_
#define LIB_CHECKPOINT_TENSOR_INDEX_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "lib/base/dtype.h"

namespace distorch {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // empty: a scalar
  uint64_t offset = 0;         // of the first byte, from the start of the file
  uint64_t bytes = 0;          // BytesOf(dtype, product(shape)); the reader has checked it
  uint32_t file = 0;           // which of the checkpoint's files, where it has several
  // Of a view that is not row-major without gaps, in elements (lib/checkpoint/strided_tensor.h);
  // else empty.
  std::vector<int64_t> strides;

  int64_t elements() const;  // product(shape); 1 for a scalar
};

// Immutable once built. Pointers into it live as long as it does.
class TensorIndex {
 public:
  TensorIndex() = default;
  // `tensors` in file order, names unique (the reader's duty).
  TensorIndex(std::vector<TensorInfo> tensors,
              absl::flat_hash_map<std::string, std::string> metadata);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const absl::flat_hash_map<std::string, std::string>& metadata() const { return metadata_; }

  // nullptr when there is no tensor of that name.
  const TensorInfo* Find(std::string_view name) const;
  // True when some tensor's name starts with `prefix`.
  bool HasPrefix(std::string_view prefix) const;

 private:
  std::vector<TensorInfo> tensors_;
  absl::flat_hash_map<std::string, std::string> metadata_;
  absl::flat_hash_map<std::string, size_t> by_name_;
};

// "[320, 4, 3, 3]", for messages.
std::string ShapeString(const std::vector<int64_t>& shape);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_TENSOR_INDEX_H_
