#include "lib/models/mmdit_model.h"

#include <ATen/ATen.h>

#include <utility>

namespace distorch::models {

MmDitModel::MmDitModel(const NamedTensors* tensors, const LatentFormat& latent_format,
                       sampling::ModelSampling sampling, const nn::MmDitConfig& config)
    : DiffusionModel(tensors, latent_format, std::move(sampling)),
      net_(nn::Scope(&store(), "diffusion_model"), config) {}

at::Tensor MmDitModel::Denoise(const at::Tensor& x, double sigma,
                               const text::Conditioning& conditioning) const {
  const int64_t batch = x.size(0);
  const at::Tensor timesteps =
      at::full({batch}, sampling().TimestepOf(static_cast<float>(sigma)), x.options());
  const at::Tensor output = net_.Forward(sampling().CalculateInput(sigma, x).to(compute().dtype),
                                         timesteps, ToCompute(conditioning.cross_attention, batch),
                                         ToCompute(conditioning.pooled, batch));
  return sampling().CalculateDenoised(sigma, output.to(at::kFloat), x);
}

}  // namespace distorch::models
