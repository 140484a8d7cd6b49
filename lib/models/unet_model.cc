#include "lib/models/unet_model.h"

#include <ATen/ATen.h>

#include <utility>

namespace distorch::models {
namespace {

constexpr double kPositiveAestheticScore = 6.0, kNegativeAestheticScore = 2.5;

double ValueOf(SizeField field, const text::SizeConditioning& size) {
  switch (field) {
    case SizeField::kHeight:
      return size.height;
    case SizeField::kWidth:
      return size.width;
    case SizeField::kCropHeight:
      return size.crop_h;
    case SizeField::kCropWidth:
      return size.crop_w;
    case SizeField::kTargetHeight:
      return size.target_height;
    case SizeField::kTargetWidth:
      return size.target_width;
    case SizeField::kAestheticScore:
      return *size.aesthetic_score;
  }
  return 0;
}

text::SizeConditioning WithDefaults(text::SizeConditioning size, GuidanceSide side, int64_t height,
                                    int64_t width) {
  if (size.height == 0) size.height = static_cast<int>(height);
  if (size.width == 0) size.width = static_cast<int>(width);
  if (size.target_height == 0) size.target_height = size.height;
  if (size.target_width == 0) size.target_width = size.width;
  if (!size.aesthetic_score) {
    size.aesthetic_score =
        side == GuidanceSide::kPositive ? kPositiveAestheticScore : kNegativeAestheticScore;
  }
  return size;
}

}  // namespace

UNetModel::UNetModel(const NamedTensors* tensors, const UNetModelConfig& config)
    : DiffusionModel(tensors, *config.latent_format, sampling::ModelSampling(config.sampling)),
      unet_(nn::Scope(&store(), "diffusion_model"), config.unet),
      blank_concat_(config.blank_concat),
      edits_in_model_space_(config.edits_in_model_space),
      size_fields_(config.size_fields) {}

int64_t UNetModel::pooled_width() const {
  if (size_fields_.empty()) return 0;
  return unet_.config().class_channels -
         kSizeEmbeddingWidth * static_cast<int64_t>(size_fields_.size());
}

at::Tensor UNetModel::Vector(const text::Conditioning& conditioning, GuidanceSide side,
                             int64_t height, int64_t width) const {
  if (size_fields_.empty()) return at::zeros({1, unet_.config().class_channels}, at::kFloat);
  const int64_t downscale = latent_format().downscale;
  text::SizeConditioning size;
  if (conditioning.size) size = *conditioning.size;
  size = WithDefaults(size, side, height * downscale, width * downscale);
  std::vector<float> values;
  for (SizeField field : size_fields_) values.push_back(static_cast<float>(ValueOf(field, size)));
  const at::Tensor embedding =
      nn::TimestepEmbedding(at::tensor(values, at::kFloat), kSizeEmbeddingWidth).view({1, -1});
  const at::Tensor& pooled = conditioning.pooled;
  return at::cat({pooled.to(at::kCPU), embedding.expand({pooled.size(0), -1})}, 1);
}

text::Conditioning UNetModel::Prepare(text::Conditioning conditioning, GuidanceSide side,
                                      int64_t height, int64_t width) const {
  if (unet_.config().class_channels > 0) {
    conditioning.pooled = Vector(conditioning, side, height, width);
    conditioning.size.reset();
  }
  return DiffusionModel::Prepare(std::move(conditioning), side, height, width);
}

at::Tensor UNetModel::Denoise(const at::Tensor& x, double sigma,
                              const text::Conditioning& conditioning) const {
  const int64_t batch = x.size(0);
  at::Tensor input = sampling().CalculateInput(sigma, x).to(compute().dtype);
  if (!blank_concat_.empty()) input = at::cat({input, Concat(x, conditioning, blank_concat_)}, 1);
  const at::Tensor timesteps =
      at::full({batch}, sampling().TimestepOf(static_cast<float>(sigma)), x.options());
  at::Tensor vector;
  if (unet_.config().class_channels > 0) vector = ToCompute(conditioning.pooled, batch);
  const at::Tensor output =
      unet_.Forward(input, timesteps, ToCompute(conditioning.cross_attention, batch), vector);
  return sampling().CalculateDenoised(sigma, output.to(at::kFloat), x);
}

}  // namespace distorch::models
