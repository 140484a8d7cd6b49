// A placed VAE: between images and latents in the user's space.
#ifndef LIB_MODELS_VAE_MODEL_H_
#define LIB_MODELS_VAE_MODEL_H_

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/nn/component.h"
#include "lib/nn/vae.h"

namespace distorch::models {

// In pixels of the image. A tile's side is at least 8 latent pixels.
struct VaeTiling {
  int64_t tile_size = 512;
  int64_t overlap = 64;  // of neighbours; a quarter of the tile where that is less
};

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

  // The same by tiles (lib/models/tiling.h): near to the whole, in memory bounded by the tile on
  // the VAE's device; `cancel` is checked between tiles.
  absl::StatusOr<at::Tensor> DecodeTiled(const at::Tensor& latents, const VaeTiling& tiling,
                                         const CancelToken& cancel) const;
  absl::StatusOr<at::Tensor> EncodeTiled(const at::Tensor& images, const VaeTiling& tiling,
                                         const CancelToken& cancel) const;

 private:
  // One item, on the CPU, in float32: [1, C, h, w] -> [1, 3, H, W] in -1…1, and back.
  at::Tensor DecodeOne(const at::Tensor& latent) const;
  at::Tensor EncodeOne(const at::Tensor& image) const;
  at::Tensor CropToCells(const at::Tensor& images) const;

  nn::AutoencoderKl vae_;
};

}  // namespace distorch::models

#endif  // LIB_MODELS_VAE_MODEL_H_
