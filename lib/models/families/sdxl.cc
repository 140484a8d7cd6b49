#include "lib/models/families/sdxl.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/models/clip_config.h"
#include "lib/models/families/unet_parts.h"
#include "lib/models/unet_config.h"
#include "lib/models/unet_model.h"
#include "lib/text/clip_text_encoders.h"

namespace distorch::models {
namespace {

constexpr int64_t kHeadChannels = 64;

constexpr KeyRule kRefinerKeys[] = {
    kDiffusionModelKeys,
    {"conditioner.embedders.0.model.", "clip_g.", ConvertOpenClip},
    kVaeKeys,
    kBareDiffusionModelKeys,
};

constexpr KeyRule kKeys[] = {
    kDiffusionModelKeys,
    {"conditioner.embedders.0.transformer.text_model.", "clip_l.transformer.text_model."},
    {"conditioner.embedders.1.model.", "clip_g.", ConvertOpenClip},
    kVaeKeys,
    // What was trained. These have no prefix, whatever the UNet's names have.
    {"v_pred", "v_pred"},
    {"ztsnr", "ztsnr"},
    {"edm_", "edm_"},
    kBareDiffusionModelKeys,
};

enum class Training { kEps, kV, kEdm, kEdmV };

Training TrainingOf(const NamedTensors& tensors) {
  if (tensors.contains("edm_mean") && tensors.contains("edm_std")) return Training::kEdm;
  if (tensors.contains("edm_vpred.sigma_max")) return Training::kEdmV;
  return tensors.contains("v_pred") ? Training::kV : Training::kEps;
}

// A class embedding, and no attention before the first downsampling (unCLIP's and SVD's have it).
bool IsSdxl(const NamedTensors& tensors, int64_t in_channels, bool refiner) {
  const UNetTraits unet = ReadUNetTraits(tensors);
  return unet.in_channels == in_channels && unet.class_channels > 0 && !unet.attends_at_full_size &&
         unet.has_four_levels == refiner;
}

// Reads the bound `name` of the noise levels into *sigma, where the file has it.
absl::Status ReadSigma(const NamedTensors& tensors, const std::string& name, TensorReader& values,
                       double* sigma) {
  if (!tensors.contains(name)) return absl::OkStatus();
  const std::vector<float> read = values.Values(tensors, name);
  if (read.size() != 1 || !(read[0] > 0) || !(read[0] < 1e6f)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is not one number above 0 and below 1e6"));
  }
  *sigma = read[0];
  return absl::OkStatus();
}

absl::Status SetTraining(const NamedTensors& tensors, TensorReader& values,
                         UNetModelConfig* config) {
  sampling::ModelSamplingConfig& sampling = config->sampling;
  switch (TrainingOf(tensors)) {
    case Training::kEps:
      return absl::OkStatus();
    case Training::kV:
      sampling.prediction = sampling::Prediction::kV;
      sampling.zero_terminal_snr = tensors.contains("ztsnr");
      return absl::OkStatus();
    case Training::kEdm:
      config->latent_format = &PlaygroundLatentFormat();
      sampling.prediction = sampling::Prediction::kEdm;
      sampling.levels = sampling::NoiseLevels::kContinuousEdm;
      sampling.sigma_data = 0.5;
      sampling.sigma_max = 80;
      return absl::OkStatus();
    case Training::kEdmV:
      config->edits_in_model_space = true;  // CosXL Edit; the others are diffusers' and are not
      sampling.prediction = sampling::Prediction::kV;
      sampling.levels = sampling::NoiseLevels::kContinuousEdm;
      RETURN_IF_ERROR(ReadSigma(tensors, "edm_vpred.sigma_max", values, &sampling.sigma_max));
      RETURN_IF_ERROR(ReadSigma(tensors, "edm_vpred.sigma_min", values, &sampling.sigma_min));
      if (sampling.sigma_min >= sampling.sigma_max) {
        return absl::InvalidArgumentError("edm_vpred.sigma_min is not below edm_vpred.sigma_max");
      }
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::StatusOr<UNetModelConfig> ReadConfig(const NamedTensors& tensors,
                                           std::vector<SizeField> size_fields) {
  UNetModelConfig config;
  ASSIGN_OR_RETURN(config.unet, ReadUNetConfig(tensors, 0, kHeadChannels));
  const int64_t sizes = static_cast<int64_t>(size_fields.size()) * kSizeEmbeddingWidth;
  if (config.unet.class_channels <= sizes) {
    return absl::InvalidArgumentError(
        absl::StrCat("diffusion_model.label_emb.0.0.weight takes ", config.unet.class_channels,
                     " channels, expected more than the ", sizes, " of the size conditioning"));
  }
  config.latent_format = &SdxlLatentFormat();
  config.blank_concat = BlankConcat(config.unet.in_channels);
  config.size_fields = std::move(size_fields);
  return config;
}

absl::StatusOr<std::unique_ptr<DiffusionModel>> BuildUNet(const NamedTensors& tensors,
                                                          TensorReader& values) {
  ASSIGN_OR_RETURN(UNetModelConfig config,
                   ReadConfig(tensors, {SizeField::kHeight, SizeField::kWidth,
                                        SizeField::kCropHeight, SizeField::kCropWidth,
                                        SizeField::kTargetHeight, SizeField::kTargetWidth}));
  RETURN_IF_ERROR(SetTraining(tensors, values, &config));
  return std::make_unique<UNetModel>(&tensors, config);
}

absl::StatusOr<std::unique_ptr<DiffusionModel>> BuildRefinerUNet(const NamedTensors& tensors,
                                                                 TensorReader& /*values*/) {
  ASSIGN_OR_RETURN(
      const UNetModelConfig config,
      ReadConfig(tensors, {SizeField::kHeight, SizeField::kWidth, SizeField::kCropHeight,
                           SizeField::kCropWidth, SizeField::kAestheticScore}));
  return std::make_unique<UNetModel>(&tensors, config);
}

absl::StatusOr<nn::ClipTextConfig> ReadClipG(const NamedTensors& tensors) {
  return ReadClipTextConfig(tensors, "clip_g.transformer.", nn::ClipTextConfig::Activation::kGelu);
}

absl::StatusOr<std::unique_ptr<text::TextEncoder>> BuildClip(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "clip_l.transformer.") && !HasPrefix(tensors, "clip_g.transformer."))
    return nullptr;
  ASSIGN_OR_RETURN(const nn::ClipTextConfig clip_l,
                   ReadClipTextConfig(tensors, "clip_l.transformer.",
                                      nn::ClipTextConfig::Activation::kQuickGelu));
  ASSIGN_OR_RETURN(const nn::ClipTextConfig clip_g, ReadClipG(tensors));
  return std::make_unique<text::SdxlTextEncoder>(&tensors, clip_l, clip_g);
}

absl::StatusOr<std::unique_ptr<text::TextEncoder>> BuildRefinerClip(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "clip_g.transformer.")) return nullptr;
  ASSIGN_OR_RETURN(const nn::ClipTextConfig config, ReadClipG(tensors));
  return std::make_unique<text::SdxlRefinerTextEncoder>(&tensors, config);
}

constexpr ModelFamily Definition(std::string_view name, decltype(ModelFamily::matches) matches) {
  return UNetFamily(name, kKeys, matches, BuildUNet, BuildClip);
}

}  // namespace

const ModelFamily& SdxlFamily() {
  static constexpr ModelFamily kFamily =
      Definition("sdxl", [](const NamedTensors& tensors, TensorReader& /*values*/) {
        return IsSdxl(tensors, kLatentChannels, false);
      });
  return kFamily;
}

const ModelFamily& SdxlVFamily() {
  static constexpr ModelFamily kFamily =
      Definition("sdxl_v", [](const NamedTensors& tensors, TensorReader& /*values*/) {
        return IsSdxl(tensors, kLatentChannels, false) && TrainingOf(tensors) == Training::kV;
      });
  return kFamily;
}

const ModelFamily& SdxlEdmFamily() {
  static constexpr ModelFamily kFamily =
      Definition("sdxl_edm", [](const NamedTensors& tensors, TensorReader& /*values*/) {
        const Training training = TrainingOf(tensors);
        return IsSdxl(tensors, kLatentChannels, false) &&
               (training == Training::kEdm || training == Training::kEdmV);
      });
  return kFamily;
}

const ModelFamily& SdxlInpaintFamily() {
  static constexpr ModelFamily kFamily =
      Definition("sdxl_inpaint", [](const NamedTensors& tensors, TensorReader& /*values*/) {
        return IsSdxl(tensors, kInpaintChannels, false);
      });
  return kFamily;
}

const ModelFamily& SdxlInstructFamily() {
  static constexpr ModelFamily kFamily =
      Definition("sdxl_instruct", [](const NamedTensors& tensors, TensorReader& /*values*/) {
        return IsSdxl(tensors, kInstructChannels, false);
      });
  return kFamily;
}

const ModelFamily& SdxlRefinerFamily() {
  static constexpr ModelFamily kFamily = UNetFamily(
      "sdxl_refiner", kRefinerKeys,
      [](const NamedTensors& tensors, TensorReader& /*values*/) {
        return IsSdxl(tensors, kLatentChannels, true);
      },
      BuildRefinerUNet, BuildRefinerClip);
  return kFamily;
}

}  // namespace distorch::models
