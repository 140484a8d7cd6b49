// A placed VAE: between images and latents in the user's space.
#ifndef LIB_MODELS_VAE_MODEL_H_
#define LIB_MODELS_VAE_MODEL_H_

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/nn/component.h"
#include "lib/nn/vae.h"

namespace distorch::models {

class VaeModel : public nn::Component {
 public:
  VaeModel(const NamedTensors* tensors, const nn::VaeConfig& config);

  int64_t latent_channels() const { return vae_.config().latent_channels; }
  int64_t downscale() const { return vae_.downscale(); }

  // Tensors are float32 on the CPU. One image is computed at a time, so that memory does not grow
  // with the batch; `cancel` is checked between images. [N, C, h, w] -> [N, H, W, 3] in 0…1, H = h
  // · downscale.
  absl::StatusOr<at::Tensor> Decode(const at::Tensor& latents, const CancelToken& cancel) const;
  // [N, H, W, 3] in 0…1 -> [N, C, h, w]; H and W are first cropped, around the centre, to multiples
  // of downscale, as the reference does.
  absl::StatusOr<at::Tensor> Encode(const at::Tensor& images, const CancelToken& cancel) const;

 private:
  nn::AutoencoderKl vae_;
};

}  // namespace distorch::models

#endif  // LIB_MODELS_VAE_MODEL_H_
