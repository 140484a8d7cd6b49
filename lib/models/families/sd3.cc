#include "lib/models/families/sd3.h"

#include "lib/base/status_macros.h"
#include "lib/models/clip_config.h"
#include "lib/models/mmdit_config.h"
#include "lib/models/mmdit_model.h"
#include "lib/models/t5_config.h"
#include "lib/models/vae_config.h"
#include "lib/text/t5_text_encoders.h"

namespace distorch::models {
namespace {

constexpr double kShift = 3.0;

constexpr KeyRule kKeys[] = {
    kDiffusionModelKeys,
    {"text_encoders.clip_l.", "clip_l."},
    {"text_encoders.clip_g.", "clip_g."},
    {"text_encoders.t5xxl.", "t5xxl."},
    kVaeKeys,
    {"vae.", "first_stage_model."},
    kBareDiffusionModelKeys,
};

bool IsMmDit(const NamedTensors& tensors) {
  return tensors.contains("diffusion_model.joint_blocks.0.context_block.attn.qkv.weight");
}

bool HasQkNorm(const NamedTensors& tensors) {
  return tensors.contains("diffusion_model.joint_blocks.0.context_block.attn.ln_q.weight");
}

absl::StatusOr<std::unique_ptr<DiffusionModel>> BuildMmDit(const NamedTensors& tensors,
                                                           TensorReader& /*values*/) {
  ASSIGN_OR_RETURN(const nn::MmDitConfig config, ReadMmDitConfig(tensors));
  const sampling::ModelSampling flow({.prediction = sampling::Prediction::kFlow,
                                      .levels = sampling::NoiseLevels::kDiscreteFlow,
                                      .shift = kShift});
  return std::make_unique<MmDitModel>(&tensors, Sd3LatentFormat(), flow, config);
}

absl::StatusOr<std::unique_ptr<text::TextEncoder>> BuildClip(const NamedTensors& tensors) {
  using Activation = nn::ClipTextConfig::Activation;
  text::Sd3TextEncoder::Configs configs;
  if (HasPrefix(tensors, "clip_l.transformer.")) {
    ASSIGN_OR_RETURN(configs.clip_l,
                     ReadClipTextConfig(tensors, "clip_l.transformer.", Activation::kQuickGelu));
  }
  if (HasPrefix(tensors, "clip_g.transformer.")) {
    ASSIGN_OR_RETURN(configs.clip_g,
                     ReadClipTextConfig(tensors, "clip_g.transformer.", Activation::kGelu));
  }
  if (HasPrefix(tensors, "t5xxl.transformer.")) {
    ASSIGN_OR_RETURN(configs.t5, ReadT5Config(tensors, "t5xxl.transformer."));
  }
  if (!configs.clip_l && !configs.clip_g && !configs.t5) return nullptr;
  RETURN_IF_ERROR(text::Sd3TextEncoder::Check(configs));
  return std::make_unique<text::Sd3TextEncoder>(&tensors, configs);
}

absl::StatusOr<std::unique_ptr<VaeModel>> BuildVae(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "first_stage_model.")) return nullptr;
  ASSIGN_OR_RETURN(const nn::VaeConfig config, ReadVaeConfig(tensors, Sd3LatentFormat().channels));
  return std::make_unique<VaeModel>(&tensors, config);
}

}  // namespace

const ModelFamily& Sd3Family() {
  static constexpr ModelFamily kFamily = {
      .name = "sd3",
      .keys = kKeys,
      .matches = [](const NamedTensors& tensors,
                    TensorReader& /*values*/) { return IsMmDit(tensors) && !HasQkNorm(tensors); },
      .build_unet = BuildMmDit,
      .build_clip = BuildClip,
      .build_vae = BuildVae,
  };
  return kFamily;
}

const ModelFamily& Sd35Family() {
  static constexpr ModelFamily kFamily = {
      .name = "sd35",
      .keys = kKeys,
      .matches = [](const NamedTensors& tensors,
                    TensorReader& /*values*/) { return IsMmDit(tensors) && HasQkNorm(tensors); },
      .build_unet = BuildMmDit,
      .build_clip = BuildClip,
      .build_vae = BuildVae,
  };
  return kFamily;
}

}  // namespace distorch::models
