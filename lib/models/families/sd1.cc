#include "lib/models/families/sd1.h"

#include <utility>

#include "lib/base/status_macros.h"
#include "lib/models/clip_config.h"
#include "lib/models/unet_config.h"
#include "lib/models/unet_model.h"
#include "lib/models/vae_config.h"

namespace distorch::models {
namespace {

constexpr int64_t kHeads = 8;
constexpr int64_t kLatentChannels = 4;

constexpr KeyRule kKeys[] = {
    {"model.diffusion_model.", "diffusion_model."},
    {"cond_stage_model.transformer.text_model.", "clip_l.transformer.text_model."},
    {"cond_stage_model.transformer.text_projection.", "clip_l.transformer.text_projection."},
    // Files converted by early tools lack the "text_model." level.
    {"cond_stage_model.transformer.", "clip_l.transformer.text_model."},
    {"first_stage_model.", "first_stage_model."},
};

// Without a mask, the reference's inpainting models see a mask of ones over a blank picture. These
// are that picture's latent values (mid-grey through the published VAE, scaled).
const std::vector<float> kBlankInpaint = {1.0f, 0.8223f, -0.6876f, 0.6364f, 0.1380f};

// The number of input channels, or 0 when the UNet is not one of SD1's: no class embedding,
// convolutions around the transformers (SD2's and SDXL's are linear).
int64_t Sd1InputChannels(const NamedTensors& tensors) {
  auto first = tensors.find("diffusion_model.input_blocks.0.0.weight");
  auto proj = tensors.find("diffusion_model.input_blocks.1.1.proj_in.weight");
  if (first == tensors.end() || first->second.shape.size() != 4) return 0;
  if (proj == tensors.end() || proj->second.shape.size() != 4) return 0;
  if (HasPrefix(tensors, "diffusion_model.label_emb.")) return 0;
  return first->second.shape[1];
}

absl::StatusOr<std::unique_ptr<DiffusionModel>> BuildUNet(const NamedTensors& tensors) {
  ASSIGN_OR_RETURN(const nn::UNetConfig config, ReadUNetConfig(tensors, kHeads, 0));
  std::vector<float> blank;
  if (config.in_channels != kLatentChannels) blank = kBlankInpaint;
  return std::make_unique<UNetModel>(&tensors, Sd1LatentFormat(), sampling::ModelSampling({}),
                                     config, std::move(blank));
}

absl::StatusOr<std::unique_ptr<text::TextEncoder>> BuildClip(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "clip_l.transformer.")) return nullptr;
  ASSIGN_OR_RETURN(const nn::ClipTextConfig config,
                   ReadClipTextConfig(tensors, "clip_l.transformer.",
                                      nn::ClipTextConfig::Activation::kQuickGelu));
  return std::make_unique<text::ClipLTextEncoder>(&tensors, config);
}

absl::StatusOr<std::unique_ptr<VaeModel>> BuildVae(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "first_stage_model.")) return nullptr;
  ASSIGN_OR_RETURN(const nn::VaeConfig config, ReadVaeConfig(tensors));
  return std::make_unique<VaeModel>(&tensors, config);
}

}  // namespace

const ModelFamily& Sd1Family() {
  static constexpr ModelFamily kFamily = {
      .name = "sd1",
      .keys = kKeys,
      .matches =
          [](const NamedTensors& tensors) { return Sd1InputChannels(tensors) == kLatentChannels; },
      .build_unet = BuildUNet,
      .build_clip = BuildClip,
      .build_vae = BuildVae,
  };
  return kFamily;
}

const ModelFamily& Sd1InpaintFamily() {
  static constexpr ModelFamily kFamily = {
      .name = "sd1_inpaint",
      .keys = kKeys,
      .matches =
          [](const NamedTensors& tensors) {
            return Sd1InputChannels(tensors) == 2 * kLatentChannels + 1;
          },
      .build_unet = BuildUNet,
      .build_clip = BuildClip,
      .build_vae = BuildVae,
  };
  return kFamily;
}

}  // namespace distorch::models
