// A placed diffusion network with its sampling rules: what samplers evaluate.
#ifndef LIB_MODELS_DIFFUSION_MODEL_H_
#define LIB_MODELS_DIFFUSION_MODEL_H_

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "lib/models/latent_format.h"
#include "lib/nn/component.h"
#include "lib/sampling/model_sampling.h"
#include "lib/text/conditioning.h"

namespace distorch::models {

class DiffusionModel : public nn::Component {
 public:
  DiffusionModel(const NamedTensors* tensors, const LatentFormat& latent_format,
                 sampling::ModelSampling sampling)
      : Component(tensors), latent_format_(latent_format), sampling_(std::move(sampling)) {}

  const LatentFormat& latent_format() const { return latent_format_; }
  const sampling::ModelSampling& sampling() const { return sampling_; }
  // Width of cross_attention.
  virtual int64_t context_width() const = 0;
  // Channels of Conditioning::concat; 0 for a model that takes none.
  virtual int64_t concat_channels() const = 0;

  // INVALID_ARGUMENT naming the part of `conditioning` that does not fit this model or a batch of
  // `batch` latents of [height, width].
  absl::Status CheckConditioning(const text::Conditioning& conditioning, int64_t batch,
                                 int64_t height, int64_t width) const;

  // One evaluation: the denoised latent for x at noise level sigma. x: [N, C, h, w] float32 on the
  // compute device, in the model's space; conditioning: batched N or 1, on any device. Returns
  // float32 like x. Throws as LibTorch does: call it inside RunTorch.
  virtual at::Tensor Denoise(const at::Tensor& x, double sigma,
                             const text::Conditioning& conditioning) const = 0;

 private:
  const LatentFormat& latent_format_;
  const sampling::ModelSampling sampling_;
};

}  // namespace distorch::models

#endif  // LIB_MODELS_DIFFUSION_MODEL_H_
