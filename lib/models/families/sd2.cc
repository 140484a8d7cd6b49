#include "lib/models/families/sd2.h"

#include <cmath>
#include <utility>
#include <vector>

#include "lib/base/status_macros.h"
#include "lib/models/clip_config.h"
#include "lib/models/families/unet_parts.h"
#include "lib/models/unet_config.h"
#include "lib/models/unet_model.h"
#include "lib/text/clip_text_encoders.h"

namespace distorch::models {
namespace {

constexpr int64_t kHeadChannels = 64;

constexpr KeyRule kKeys[] = {
    kDiffusionModelKeys,
    {"cond_stage_model.model.", "clip_h.", ConvertOpenClip},
    {"conditioner.embedders.0.model.", "clip_h.", ConvertOpenClip},  // Stability's later layout
    {"cond_stage_model.transformer.", "clip_h.transformer."},
    kVaeKeys,
    kBareDiffusionModelKeys,
};

bool IsSd2(const NamedTensors& tensors, int64_t in_channels, int64_t class_channels) {
  const UNetTraits unet = ReadUNetTraits(tensors);
  return unet.in_channels == in_channels && unet.class_channels == class_channels &&
         unet.attends_at_full_size && unet.linear_projection &&
         !HasPrefix(tensors, "diffusion_model.label_emb.weight");  // the upscaler's
}

// A picture's embedding and that of its noise level, from CLIP-L's or CLIP-H's picture encoder.
bool IsUnclip(const NamedTensors& tensors) {
  return IsSd2(tensors, kLatentChannels, 2 * 768) || IsSd2(tensors, kLatentChannels, 2 * 1024);
}

// The reference's criterion. Inpainting models predict the noise, whatever it says.
bool PredictsVelocity(const NamedTensors& tensors, TensorReader& values) {
  constexpr double kSpread = 0.09;
  if (ReadUNetTraits(tensors).in_channels != kLatentChannels) return false;
  const std::vector<float> bias =
      values.Values(tensors, "diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias");
  if (bias.empty()) return false;
  double mean = 0, variance = 0;
  for (float b : bias) mean += b;
  mean /= static_cast<double>(bias.size());
  for (float b : bias) variance += (b - mean) * (b - mean);
  return std::sqrt(variance / static_cast<double>(bias.size())) > kSpread;
}

absl::StatusOr<std::unique_ptr<DiffusionModel>> BuildUNet(const NamedTensors& tensors,
                                                          TensorReader& values) {
  UNetModelConfig config;
  ASSIGN_OR_RETURN(config.unet, ReadUNetConfig(tensors, 0, kHeadChannels));
  config.latent_format = &Sd1LatentFormat();
  if (PredictsVelocity(tensors, values)) config.sampling.prediction = sampling::Prediction::kV;
  config.blank_concat = BlankConcat(config.unet.in_channels);
  return std::make_unique<UNetModel>(&tensors, config);
}

absl::StatusOr<std::unique_ptr<text::TextEncoder>> BuildClip(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "clip_h.transformer.")) return nullptr;
  ASSIGN_OR_RETURN(
      const nn::ClipTextConfig config,
      ReadClipTextConfig(tensors, "clip_h.transformer.", nn::ClipTextConfig::Activation::kGelu));
  return std::make_unique<text::Sd2TextEncoder>(&tensors, config);
}

constexpr ModelFamily Definition(std::string_view name, decltype(ModelFamily::matches) matches) {
  return UNetFamily(name, kKeys, matches, BuildUNet, BuildClip, /*native_side=*/768);
}

}  // namespace

const ModelFamily& Sd2Family() {
  static constexpr ModelFamily kFamily =
      Definition("sd2", [](const NamedTensors& tensors, TensorReader& /*values*/) {
        return IsSd2(tensors, kLatentChannels, 0);
      });
  return kFamily;
}

const ModelFamily& Sd2VFamily() {
  static constexpr ModelFamily kFamily =
      Definition("sd2_v", [](const NamedTensors& tensors, TensorReader& values) {
        return IsSd2(tensors, kLatentChannels, 0) && PredictsVelocity(tensors, values);
      });
  return kFamily;
}

const ModelFamily& Sd2InpaintFamily() {
  static constexpr ModelFamily kFamily =
      Definition("sd2_inpaint", [](const NamedTensors& tensors, TensorReader& /*values*/) {
        return IsSd2(tensors, kInpaintChannels, 0);
      });
  return kFamily;
}

const ModelFamily& Sd2UnclipFamily() {
  static constexpr ModelFamily kFamily = Definition(
      "sd2_unclip",
      [](const NamedTensors& tensors, TensorReader& /*values*/) { return IsUnclip(tensors); });
  return kFamily;
}

}  // namespace distorch::models
