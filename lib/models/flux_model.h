// A Flux transformer (lib/nn/flux.h) as a DiffusionModel.
#ifndef LIB_MODELS_FLUX_MODEL_H_
#define LIB_MODELS_FLUX_MODEL_H_

#include <vector>

#include "lib/models/diffusion_model.h"
#include "lib/nn/flux.h"

namespace distorch::models {

class FluxModel : public DiffusionModel {
 public:
  // `blank_concat`: what each extra input channel holds, everywhere, when the conditioning brings
  // no concat; its size is the number of extra channels.
  FluxModel(const NamedTensors* tensors, const LatentFormat& latent_format,
            sampling::ModelSampling sampling, const nn::FluxConfig& config,
            std::vector<float> blank_concat);

  int64_t context_width() const override { return net_.config().context_width; }
  int64_t pooled_width() const override { return net_.config().pooled_width; }
  int64_t concat_channels() const override { return static_cast<int64_t>(blank_concat_.size()); }
  bool context_may_repeat() const override { return false; }
  // Without Conditioning::guidance it is 3.5, as in the reference.
  StepWork Work(const StepSize& size) const override { return FluxWork(ShapeOf(store()), size); }
  at::Tensor Denoise(const at::Tensor& x, double sigma,
                     const text::Conditioning& conditioning) const override;

 private:
  nn::Flux net_;
  const std::vector<float> blank_concat_;
};

}  // namespace distorch::models

#endif  // LIB_MODELS_FLUX_MODEL_H_
