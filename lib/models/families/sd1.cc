#include "lib/models/families/sd1.h"

#include <utility>

#include "lib/base/status_macros.h"
#include "lib/models/clip_config.h"
#include "lib/models/families/unet_parts.h"
#include "lib/models/unet_config.h"
#include "lib/models/unet_model.h"
#include "lib/text/clip_text_encoders.h"

namespace distorch::models {
namespace {

constexpr int64_t kHeads = 8;

constexpr KeyRule kKeys[] = {
    kDiffusionModelKeys,
    {"cond_stage_model.transformer.text_model.", "clip_l.transformer.text_model."},
    {"cond_stage_model.transformer.text_projection.", "clip_l.transformer.text_projection."},
    // Files converted by early tools lack the "text_model." level.
    {"cond_stage_model.transformer.", "clip_l.transformer.text_model."},
    kVaeKeys,
    kBareDiffusionModelKeys,
};

// No class embedding, and convolutions around the transformers (SD2's and SDXL's are linear).
bool IsSd1(const NamedTensors& tensors, int64_t in_channels) {
  const UNetTraits unet = ReadUNetTraits(tensors);
  return unet.in_channels == in_channels && unet.class_channels == 0 && unet.attends_at_full_size &&
         !unet.linear_projection &&
         // Stable Zero123's, whose text is a picture.
         !tensors.contains("diffusion_model.cc_projection.weight");
}

absl::StatusOr<std::unique_ptr<DiffusionModel>> BuildUNet(const NamedTensors& tensors,
                                                          TensorReader& /*values*/) {
  UNetModelConfig config;
  ASSIGN_OR_RETURN(config.unet, ReadUNetConfig(tensors, kHeads, 0));
  config.latent_format = &Sd1LatentFormat();
  config.blank_concat = BlankConcat(config.unet.in_channels);
  return std::make_unique<UNetModel>(&tensors, config);
}

absl::StatusOr<std::unique_ptr<text::TextEncoder>> BuildClip(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "clip_l.transformer.")) return nullptr;
  ASSIGN_OR_RETURN(const nn::ClipTextConfig config,
                   ReadClipTextConfig(tensors, "clip_l.transformer.",
                                      nn::ClipTextConfig::Activation::kQuickGelu));
  return std::make_unique<text::Sd1TextEncoder>(&tensors, config);
}

template <int64_t kInChannels>
constexpr ModelFamily Definition(std::string_view name) {
  return UNetFamily(
      name, kKeys,
      [](const NamedTensors& tensors, TensorReader& /*values*/) {
        return IsSd1(tensors, kInChannels);
      },
      BuildUNet, BuildClip, /*native_side=*/512);
}

}  // namespace

const ModelFamily& Sd1Family() {
  static constexpr ModelFamily kFamily = Definition<kLatentChannels>("sd1");
  return kFamily;
}

const ModelFamily& Sd1InpaintFamily() {
  static constexpr ModelFamily kFamily = Definition<kInpaintChannels>("sd1_inpaint");
  return kFamily;
}

const ModelFamily& Sd1InstructFamily() {
  static constexpr ModelFamily kFamily = Definition<kInstructChannels>("sd1_instruct");
  return kFamily;
}

}  // namespace distorch::models
