// A Flux transformer's configuration, read from the shapes of its tensors alone.
#ifndef LIB_MODELS_FLUX_CONFIG_H_
#define LIB_MODELS_FLUX_CONFIG_H_

#include "absl/status/statusor.h"
#include "lib/distorch/named_tensor.h"
#include "lib/nn/flux.h"

namespace distorch::models {

// Under the prefix "diffusion_model.". Hostile input as in unet_config.h: what is returned can run.
absl::StatusOr<nn::FluxConfig> ReadFluxConfig(const NamedTensors& tensors);

}  // namespace distorch::models

#endif  // LIB_MODELS_FLUX_CONFIG_H_
