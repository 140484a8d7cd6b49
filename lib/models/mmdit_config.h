// An MMDiT's configuration, read from the shapes of its tensors alone.
#ifndef LIB_MODELS_MMDIT_CONFIG_H_
#define LIB_MODELS_MMDIT_CONFIG_H_

#include "absl/status/statusor.h"
#include "lib/distorch/named_tensor.h"
#include "lib/nn/mmdit.h"

namespace distorch::models {

// Under the prefix "diffusion_model.". Hostile input as in unet_config.h: what is returned can run.
absl::StatusOr<nn::MmDitConfig> ReadMmDitConfig(const NamedTensors& tensors);

}  // namespace distorch::models

#endif  // LIB_MODELS_MMDIT_CONFIG_H_
