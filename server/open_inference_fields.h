// The options of the Open Inference Protocol's models: the fields of distorch.v1's requests, found
// by name, so that both protocols take the same ones.
#ifndef SERVER_OPEN_INFERENCE_FIELDS_H_
#define SERVER_OPEN_INFERENCE_FIELDS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "proto/distorch.pb.h"
#include "proto/open_inference.pb.h"

namespace distorch {

// What a client sent for one: a parameter, an element of a tensor, or a value of JSON.
using FieldValue = std::variant<bool, int64_t, uint64_t, double, std::string>;

struct OpenField {
  std::string_view name;
  std::string_view datatype;  // the protocol's: "INT32", "BYTES", …
  inference::DataType config_type;
};

// Of InferRequest and its SamplingOptions, those that a client of the protocol may set; "prompt" is
// the first.
const std::vector<OpenField>& InferFields();
// Of LoadCheckpointRequest, all but ckpt_name.
const std::vector<OpenField>& LoadFields();

// Sets the field of `name`. INVALID_ARGUMENT, naming it, unless there is one and `value` is of its
// type, or text that says one: ranges are checked where the request is read (server/translate.h).
absl::Status SetInferField(std::string_view name, const FieldValue& value,
                           v1::InferRequest* request);
absl::Status SetLoadField(std::string_view name, const FieldValue& value,
                          v1::LoadCheckpointRequest* request);

}  // namespace distorch

#endif  // SERVER_OPEN_INFERENCE_FIELDS_H_
