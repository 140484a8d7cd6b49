// Between the messages of proto/open_inference.proto and the core's plain types; translate.h's
// rules: INVALID_ARGUMENT names the input or the parameter and what is allowed.
#ifndef SERVER_OPEN_INFERENCE_REQUEST_H_
#define SERVER_OPEN_INFERENCE_REQUEST_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/serving/daemon_core.h"
#include "proto/open_inference.pb.h"
#include "server/request_limits.h"

namespace distorch {

// What a model consists of.
struct ModelHandles {
  std::string model, clip, vae;
};

// A ModelInfer: one Infer for each prompt.
struct OpenInfer {
  struct Item {
    std::string prompt, negative_prompt;
    uint64_t seed = 0;
  };

  InferSpec spec;  // what the items share
  std::vector<Item> items;
  std::vector<std::string> outputs;  // in the order asked for

  InferSpec SpecOf(const Item& item) const;
};
absl::StatusOr<OpenInfer> ToOpenInfer(const inference::ModelInferRequest& request,
                                      const ModelHandles& handles,
                                      const RequestLimits& limits = {});
// The outputs asked for, of one result for each item.
void ToProto(const OpenInfer& infer, std::span<InferResult> results,
             inference::ModelInferResponse* out);

struct OpenLoad {
  LoadSpec spec;
  std::map<std::string, std::string> fields;  // those given, as a configuration has them
};
absl::StatusOr<OpenLoad> ToOpenLoad(const inference::RepositoryModelLoadRequest& request);

// Whether to unload also what is in use.
absl::StatusOr<bool> ToForce(const inference::RepositoryModelUnloadRequest& request);
absl::Status CheckRepository(const std::string& repository_name);

// What all models take and give.
void DescribeTensors(inference::ModelMetadataResponse* out);
void DescribeTensors(inference::ModelConfig* out);

}  // namespace distorch

#endif  // SERVER_OPEN_INFERENCE_REQUEST_H_
