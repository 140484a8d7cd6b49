// An MMDiT (lib/nn/mmdit.h) as a DiffusionModel.
#ifndef LIB_MODELS_MMDIT_MODEL_H_
#define LIB_MODELS_MMDIT_MODEL_H_

#include "lib/models/diffusion_model.h"
#include "lib/nn/mmdit.h"

namespace distorch::models {

class MmDitModel : public DiffusionModel {
 public:
  MmDitModel(const NamedTensors* tensors, const LatentFormat& latent_format,
             sampling::ModelSampling sampling, const nn::MmDitConfig& config);

  int64_t context_width() const override { return net_.config().context_width; }
  int64_t pooled_width() const override { return net_.config().pooled_width; }
  int64_t concat_channels() const override { return 0; }
  int64_t max_latent_side() const override { return nn::kPatch * net_.config().position_side; }
  bool context_may_repeat() const override { return false; }
  StepWork Work(const StepSize& size) const override { return MmDitWork(ShapeOf(store()), size); }
  at::Tensor Denoise(const at::Tensor& x, double sigma,
                     const text::Conditioning& conditioning) const override;

 private:
  nn::MmDit net_;
};

}  // namespace distorch::models

#endif  // LIB_MODELS_MMDIT_MODEL_H_
