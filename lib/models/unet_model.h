// A UNet (lib/nn/unet.h) as a DiffusionModel.
#ifndef LIB_MODELS_UNET_MODEL_H_
#define LIB_MODELS_UNET_MODEL_H_

#include <vector>

#include "lib/models/diffusion_model.h"
#include "lib/nn/unet.h"

namespace distorch::models {

class UNetModel : public DiffusionModel {
 public:
  // `blank_concat`: what each extra input channel holds, everywhere, when the conditioning brings
  // no concat; its size is the number of extra channels.
  UNetModel(const NamedTensors* tensors, const LatentFormat& latent_format,
            sampling::ModelSampling sampling, const nn::UNetConfig& config,
            std::vector<float> blank_concat);

  int64_t context_width() const override { return unet_.config().context_width; }
  int64_t concat_channels() const override { return static_cast<int64_t>(blank_concat_.size()); }
  at::Tensor Denoise(const at::Tensor& x, double sigma,
                     const text::Conditioning& conditioning) const override;

 private:
  at::Tensor Concat(const at::Tensor& x, const text::Conditioning& conditioning) const;

  nn::UNet unet_;
  const std::vector<float> blank_concat_;
};

}  // namespace distorch::models

#endif  // LIB_MODELS_UNET_MODEL_H_
