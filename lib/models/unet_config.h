// A UNet's configuration, read from the shapes of its tensors alone.
#ifndef LIB_MODELS_UNET_CONFIG_H_
#define LIB_MODELS_UNET_CONFIG_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "lib/distorch/named_tensor.h"
#include "lib/nn/unet.h"

namespace distorch::models {

// Input is hostile: sizes are bounded and checked against each other, so that a UNet built from the
// result can run. `heads` 0 means `head_channels` a head. INVALID_ARGUMENT names the tensor that is
// missing or does not fit.
absl::StatusOr<nn::UNetConfig> ReadUNetConfig(const NamedTensors& tensors, int64_t heads,
                                              int64_t head_channels);

}  // namespace distorch::models

#endif  // LIB_MODELS_UNET_CONFIG_H_
