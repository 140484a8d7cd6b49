// Images to latents and back, whole or by tiles.
#ifndef LIB_PIPELINE_VAE_H_
#define LIB_PIPELINE_VAE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/models/vae_model.h"

namespace distorch::pipeline {

struct VaeOptions {
  // Side of the tiles in pixels of the image; 0: the image whole, and by tiles only when the device
  // has no memory for that.
  int64_t tile_size = 0;
  // Told when that happened. May be empty.
  std::function<void(std::string_view message)> warn;
};

// As VaeModel's methods, which see. RESOURCE_EXHAUSTED when even a tile does not fit.
absl::StatusOr<at::Tensor> DecodeLatents(const models::VaeModel& vae, const at::Tensor& latents,
                                         const VaeOptions& options, const CancelToken& cancel);
absl::StatusOr<at::Tensor> EncodeImages(const models::VaeModel& vae, const at::Tensor& images,
                                        const VaeOptions& options, const CancelToken& cancel);

}  // namespace distorch::pipeline

#endif  // LIB_PIPELINE_VAE_H_
