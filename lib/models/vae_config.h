// A VAE's configuration, read from the shapes of its tensors alone.
#ifndef LIB_MODELS_VAE_CONFIG_H_
#define LIB_MODELS_VAE_CONFIG_H_

#include "absl/status/statusor.h"
#include "lib/distorch/named_tensor.h"
#include "lib/nn/vae.h"

namespace distorch::models {

// Under the prefix "first_stage_model."; must be for latents of `latent_channels`. Hostile input as
// in unet_config.h.
absl::StatusOr<nn::VaeConfig> ReadVaeConfig(const NamedTensors& tensors,
                                            int64_t latent_channels = 4);

}  // namespace distorch::models

#endif  // LIB_MODELS_VAE_CONFIG_H_
