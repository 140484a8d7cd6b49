// Values of a few small tensors, for the families that names and shapes do not tell apart.
#ifndef LIB_MODELS_TENSOR_READER_H_
#define LIB_MODELS_TENSOR_READER_H_

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/distorch/named_tensor.h"

namespace distorch::models {

// Reads from the file when asked, and remembers the first thing that goes wrong, so that a family
// is recognised and built whole, then judged.
class TensorReader {
 public:
  // `file` must outlive it.
  explicit TensorReader(const CheckpointFile* file) : file_(file) {}

  // The values of `tensors`' `name`, which the file must hold in one piece. Empty when there is
  // none, when it holds no floating-point numbers or more than 65,536, and after an error.
  std::vector<float> Values(const NamedTensors& tensors, std::string_view name);

  // DATA_LOSS when the file could not be read.
  const absl::Status& status() const { return status_; }

 private:
  const CheckpointFile* file_;
  absl::Status status_;
};

}  // namespace distorch::models

#endif  // LIB_MODELS_TENSOR_READER_H_
