#include "lib/models/unet_model.h"

#include <ATen/ATen.h>

#include <utility>

namespace distorch::models {
namespace {

at::Tensor ToBatch(const at::Tensor& t, int64_t batch) {
  if (t.size(0) == batch) return t;
  std::vector<int64_t> sizes(static_cast<size_t>(t.dim()), -1);
  sizes[0] = batch;
  return t.expand(sizes);
}

}  // namespace

UNetModel::UNetModel(const NamedTensors* tensors, const LatentFormat& latent_format,
                     sampling::ModelSampling sampling, const nn::UNetConfig& config,
                     std::vector<float> blank_concat)
    : DiffusionModel(tensors, latent_format, std::move(sampling)),
      unet_(nn::Scope(&store(), "diffusion_model"), config),
      blank_concat_(std::move(blank_concat)) {}

at::Tensor UNetModel::Concat(const at::Tensor& x, const text::Conditioning& conditioning) const {
  if (conditioning.concat.defined()) return ToBatch(conditioning.concat.to(x.device()), x.size(0));
  const at::Tensor blank = at::tensor(blank_concat_, at::kFloat).view({1, -1, 1, 1}).to(x.device());
  return blank.expand({x.size(0), -1, x.size(2), x.size(3)});
}

at::Tensor UNetModel::Denoise(const at::Tensor& x, double sigma,
                              const text::Conditioning& conditioning) const {
  at::Tensor input = sampling().CalculateInput(sigma, x);
  if (!blank_concat_.empty()) input = at::cat({input, Concat(x, conditioning)}, 1);
  const at::Tensor context = conditioning.cross_attention.to(x.device()).to(compute().dtype);
  const at::Tensor timesteps =
      at::full({x.size(0)}, sampling().TimestepOf(static_cast<float>(sigma)), x.options());
  const at::Tensor output =
      unet_.Forward(input.to(compute().dtype), timesteps, ToBatch(context, x.size(0)).contiguous());
  return sampling().CalculateDenoised(sigma, output.to(at::kFloat), x);
}

}  // namespace distorch::models
