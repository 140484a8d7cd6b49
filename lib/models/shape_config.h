// A UNet's, VAE's or CLIP's configuration, read from the shapes of its tensors alone.
#ifndef LIB_MODELS_SHAPE_CONFIG_H_
#define LIB_MODELS_SHAPE_CONFIG_H_

#include "absl/status/statusor.h"
#include "lib/distorch/weight_store.h"
#include "lib/nn/clip_text.h"
#include "lib/nn/unet.h"
#include "lib/nn/vae.h"

namespace distorch::models {

// Input is hostile: sizes are bounded and checked against each other, so that a UNet built from the
// result can run. `heads` 0 means `head_channels` a head. INVALID_ARGUMENT names the tensor that is
// missing or does not fit.
absl::StatusOr<nn::UNetConfig> ReadUNetConfig(const NamedTensors& tensors, int64_t heads,
                                              int64_t head_channels);

// Under the prefix "first_stage_model.".
absl::StatusOr<nn::VaeConfig> ReadVaeConfig(const NamedTensors& tensors);

// `prefix`: "clip_l.transformer.". Heads of 64 channels, as all published CLIP text models have.
absl::StatusOr<nn::ClipTextConfig> ReadClipTextConfig(const NamedTensors& tensors,
                                                      const std::string& prefix,
                                                      nn::ClipTextConfig::Activation activation);

}  // namespace distorch::models

#endif  // LIB_MODELS_SHAPE_CONFIG_H_
