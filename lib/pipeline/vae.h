// Images to latents and back, whole or by tiles.
#ifndef LIB_PIPELINE_VAE_H_
#define LIB_PIPELINE_VAE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/models/vae_model.h"

namespace distorch::pipeline {

// Side of the tiles to go on by, in pixels of the image, where there is no memory for the whole.
inline constexpr int64_t kFallbackTile = 512;

struct VaeOptions {
  // Side of the tiles in pixels of the image; 0: the image whole.
  int64_t tile_size = 0;
  // Without a tile_size: tiles of kFallbackTile, which overlap as the reference's do that it falls
  // back to.
  bool falls_back = false;
};

// As VaeModel's methods, which see. RESOURCE_EXHAUSTED where memory lacks for what the options say.
absl::StatusOr<at::Tensor> DecodeLatents(const models::VaeModel& vae, const at::Tensor& latents,
                                         const VaeOptions& options, const CancelToken& cancel);
absl::StatusOr<at::Tensor> EncodeImages(const models::VaeModel& vae, const at::Tensor& images,
                                        const VaeOptions& options, const CancelToken& cancel);

}  // namespace distorch::pipeline

#endif  // LIB_PIPELINE_VAE_H_
