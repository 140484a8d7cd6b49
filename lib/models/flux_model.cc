#include "lib/models/flux_model.h"

#include <ATen/ATen.h>

#include <utility>

namespace distorch::models {
namespace {

constexpr double kDefaultGuidance = 3.5;

}  // namespace

FluxModel::FluxModel(const NamedTensors* tensors, const LatentFormat& latent_format,
                     sampling::ModelSampling sampling, const nn::FluxConfig& config,
                     std::vector<float> blank_concat)
    : DiffusionModel(tensors, latent_format, std::move(sampling)),
      net_(nn::Scope(&store(), "diffusion_model"), config),
      blank_concat_(std::move(blank_concat)) {}

at::Tensor FluxModel::Denoise(const at::Tensor& x, double sigma,
                              const text::Conditioning& conditioning) const {
  const int64_t batch = x.size(0);
  at::Tensor input = sampling().CalculateInput(sigma, x).to(compute().dtype);
  if (!blank_concat_.empty()) input = at::cat({input, Concat(x, conditioning, blank_concat_)}, 1);
  const at::Tensor timesteps =
      at::full({batch}, sampling().TimestepOf(static_cast<float>(sigma)), x.options());
  const at::Tensor guidance =
      at::full({batch}, conditioning.guidance.value_or(kDefaultGuidance), input.options());
  const at::Tensor output =
      net_.Forward(input, timesteps, ToCompute(conditioning.cross_attention, batch),
                   ToCompute(conditioning.pooled, batch), guidance);
  return sampling().CalculateDenoised(sigma, output.to(at::kFloat), x);
}

}  // namespace distorch::models
