// A CLIP text model's configuration, read from the shapes of its tensors alone.
#ifndef LIB_MODELS_CLIP_CONFIG_H_
#define LIB_MODELS_CLIP_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "lib/distorch/named_tensor.h"
#include "lib/nn/clip_text.h"

namespace distorch::models {

// `prefix`: "clip_l.transformer.". Heads of 64 channels, as all published CLIP text models have.
// Hostile input as in unet_config.h.
absl::StatusOr<nn::ClipTextConfig> ReadClipTextConfig(const NamedTensors& tensors,
                                                      const std::string& prefix,
                                                      nn::ClipTextConfig::Activation activation);

}  // namespace distorch::models

#endif  // LIB_MODELS_CLIP_CONFIG_H_
