// Tensors of the Open Inference Protocol: what clients put in, typed or raw, and what they get,
// raw.
#ifndef SERVER_OPEN_INFERENCE_TENSOR_H_
#define SERVER_OPEN_INFERENCE_TENSOR_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/open_inference.pb.h"
#include "server/open_inference_fields.h"

namespace distorch {

// The elements of `input`, in order; there are at least one and at most `max_elements`. Taken from
// `raw` (little-endian; BYTES after their length in four bytes) unless it is null, else from the
// contents. INVALID_ARGUMENT, naming the input, for a datatype that no option has (FP16, BF16), and
// unless there are as many elements as the shape says.
absl::StatusOr<std::vector<FieldValue>> ReadTensor(
    const inference::ModelInferRequest::InferInputTensor& input, const std::string* raw,
    int64_t max_elements);

// Adds an output and its raw contents.
void AddTensor(std::string_view name, std::string_view datatype, const std::vector<int64_t>& shape,
               std::string raw, inference::ModelInferResponse* response);
// The raw contents of BYTES elements.
std::string PackBytes(const std::vector<std::string>& elements);

}  // namespace distorch

#endif  // SERVER_OPEN_INFERENCE_TENSOR_H_
