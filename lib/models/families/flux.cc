#include "lib/models/families/flux.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/models/clip_config.h"
#include "lib/models/flux_config.h"
#include "lib/models/flux_model.h"
#include "lib/models/t5_config.h"
#include "lib/models/vae_config.h"
#include "lib/text/t5_text_encoders.h"

namespace distorch::models {
namespace {

// mu of dev's noise levels.
constexpr double kDevShift = 1.15;
// A mask comes at the image's size, eight by eight pixels as the channels of one.
constexpr int64_t kMaskChannels = 64;

constexpr KeyRule kKeys[] = {
    kDiffusionModelKeys,
    {"text_encoders.clip_l.", "clip_l."},
    {"text_encoders.t5xxl.", "t5xxl."},
    {"vae.", "first_stage_model."},
    kVaeKeys,
    kBareDiffusionModelKeys,
};

// Others have double blocks, too; Chroma's lack the vector that conditions.
bool IsFlux(const NamedTensors& tensors) {
  return tensors.contains("diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale") &&
         tensors.contains("diffusion_model.img_in.weight") &&
         tensors.contains("diffusion_model.vector_in.in_layer.weight");
}

bool HasGuidance(const NamedTensors& tensors) {
  return tensors.contains("diffusion_model.guidance_in.in_layer.weight");
}

// What the reference's models see in their extra channels when nothing was given: the latent of
// zeros, and a mask of ones.
absl::StatusOr<std::vector<float>> BlankConcat(int64_t in_channels) {
  const LatentFormat& format = FluxLatentFormat();
  const int64_t extra = in_channels - format.channels;
  if (extra != 0 && extra != format.channels && extra != format.channels + kMaskChannels) {
    return absl::InvalidArgumentError(
        absl::StrCat("diffusion_model.img_in.weight takes ", in_channels, " channels, expected ",
                     format.channels, ", ", 2 * format.channels, " (with a control image) or ",
                     2 * format.channels + kMaskChannels, " (with an image and a mask)"));
  }
  std::vector<float> blank;
  if (extra == 0) return blank;
  blank.assign(static_cast<size_t>(format.channels),
               static_cast<float>(-format.mean[0] * format.scale));
  blank.resize(static_cast<size_t>(extra), 1.0f);
  return blank;
}

sampling::ModelSampling Sampling(bool guidance) {
  sampling::ModelSamplingConfig config = {.prediction = sampling::Prediction::kFlow,
                                          .levels = sampling::NoiseLevels::kFlux,
                                          .shift = kDevShift};
  if (!guidance) {
    config.levels = sampling::NoiseLevels::kDiscreteFlow;
    config.shift = 1.0;
    config.multiplier = 1.0;
  }
  return sampling::ModelSampling(config);
}

absl::StatusOr<std::unique_ptr<DiffusionModel>> BuildFlux(const NamedTensors& tensors,
                                                          TensorReader& /*values*/) {
  ASSIGN_OR_RETURN(const nn::FluxConfig config, ReadFluxConfig(tensors));
  ASSIGN_OR_RETURN(std::vector<float> blank, BlankConcat(config.in_channels));
  return std::make_unique<FluxModel>(&tensors, FluxLatentFormat(), Sampling(config.guidance),
                                     config, std::move(blank));
}

absl::StatusOr<std::unique_ptr<text::TextEncoder>> BuildClip(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "clip_l.transformer.") || !HasPrefix(tensors, "t5xxl.transformer.")) {
    return nullptr;
  }
  ASSIGN_OR_RETURN(const nn::ClipTextConfig clip_l,
                   ReadClipTextConfig(tensors, "clip_l.transformer.",
                                      nn::ClipTextConfig::Activation::kQuickGelu));
  ASSIGN_OR_RETURN(const nn::T5Config t5, ReadT5Config(tensors, "t5xxl.transformer."));
  return std::make_unique<text::FluxTextEncoder>(&tensors, clip_l, t5);
}

absl::StatusOr<std::unique_ptr<VaeModel>> BuildVae(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "first_stage_model.")) return nullptr;
  ASSIGN_OR_RETURN(const nn::VaeConfig config, ReadVaeConfig(tensors, FluxLatentFormat().channels));
  return std::make_unique<VaeModel>(&tensors, config);
}

}  // namespace

const ModelFamily& FluxFamily() {
  static constexpr ModelFamily kFamily = {
      .name = "flux",
      .keys = kKeys,
      .matches = [](const NamedTensors& tensors,
                    TensorReader& /*values*/) { return IsFlux(tensors) && HasGuidance(tensors); },
      .build_unet = BuildFlux,
      .build_clip = BuildClip,
      .build_vae = BuildVae,
      .native_batch = 1,
  };
  return kFamily;
}

const ModelFamily& FluxSchnellFamily() {
  static constexpr ModelFamily kFamily = {
      .name = "flux_schnell",
      .keys = kKeys,
      .matches = [](const NamedTensors& tensors,
                    TensorReader& /*values*/) { return IsFlux(tensors) && !HasGuidance(tensors); },
      .build_unet = BuildFlux,
      .build_clip = BuildClip,
      .build_vae = BuildVae,
      .native_batch = 1,
  };
  return kFamily;
}

}  // namespace distorch::models
