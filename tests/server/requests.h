// Requests that are well-formed and say little.
#ifndef TESTS_SERVER_REQUESTS_H_
#define TESTS_SERVER_REQUESTS_H_

#include <string>

#include "proto/distorch.pb.h"

namespace distorch {

inline v1::LoadCheckpointRequest LoadRequest() {
  v1::LoadCheckpointRequest request;
  request.set_ckpt_name("a.safetensors");
  return request;
}

inline v1::InferRequest InferRequest() {
  v1::InferRequest request;
  request.set_model("m");
  request.set_clip("c");
  request.set_vae("v");
  request.set_prompt("a secret garden");
  return request;
}

inline v1::Tensor OneFloat() {
  v1::Tensor tensor;
  tensor.set_dtype(v1::FLOAT32);
  tensor.add_shape(1);
  tensor.set_data(std::string(4, '\0'));
  return tensor;
}

inline v1::DenoiseRequest DenoiseRequest() {
  v1::DenoiseRequest request;
  request.set_model("m");
  *request.mutable_x() = OneFloat();
  *request.mutable_conditioning()->mutable_cross_attention() = OneFloat();
  request.add_sigma(1);
  return request;
}

}  // namespace distorch

#endif  // TESTS_SERVER_REQUESTS_H_
