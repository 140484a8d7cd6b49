// A T5 encoder's configuration, read from the shapes of its tensors alone.
#ifndef LIB_MODELS_T5_CONFIG_H_
#define LIB_MODELS_T5_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "lib/distorch/named_tensor.h"
#include "lib/nn/t5.h"

namespace distorch::models {

// `prefix`: "t5xxl.transformer.". The number of heads is that of the distance biases. Hostile input
// as in unet_config.h.
absl::StatusOr<nn::T5Config> ReadT5Config(const NamedTensors& tensors, const std::string& prefix);

}  // namespace distorch::models

#endif  // LIB_MODELS_T5_CONFIG_H_
