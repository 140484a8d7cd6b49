// Sizes from shapes: what every family's configuration is read from.
#ifndef LIB_MODELS_SHAPE_READER_H_
#define LIB_MODELS_SHAPE_READER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "lib/distorch/named_tensor.h"

namespace distorch::models {

// Reads sizes from shapes and remembers the first thing that is wrong, so that a configuration is
// read whole and then judged. Files are hostile: every size is bounded.
class ShapeReader {
 public:
  // Names below are relative to `prefix` ("diffusion_model."). `tensors` must outlive it.
  ShapeReader(const NamedTensors& tensors, std::string prefix);

  bool Has(const std::string& name) const;
  // Dimension `dim` of a tensor with `rank` dimensions; 1 after an error.
  int64_t Size(const std::string& name, size_t rank, size_t dim);
  // How many of BEFORE0AFTER, BEFORE1AFTER, … there are in a row.
  int64_t Count(const std::string& before, const std::string& after) const;
  // How many blocks BEFORE0.*, BEFORE1.*, … there are in a row; a block beyond a gap is an error.
  int64_t CountBlocks(const std::string& before);

  // `name` is what `value` is, for the message.
  void RequireDivisible(const std::string& name, int64_t value, int64_t by);
  // `problem` continues the prefix: "out has 3 channels".
  void Require(bool condition, const std::string& problem);

  // INVALID_ARGUMENT naming the first tensor that is missing or does not fit.
  const absl::Status& status() const { return status_; }

 private:
  int64_t Fail(const std::string& problem);

  const NamedTensors& tensors_;
  const std::string prefix_;
  absl::Status status_;
};

}  // namespace distorch::models

#endif  // LIB_MODELS_SHAPE_READER_H_
