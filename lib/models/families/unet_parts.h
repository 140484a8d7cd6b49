// What the definitions of the families with a latent-diffusion UNet share.
#ifndef LIB_MODELS_FAMILIES_UNET_PARTS_H_
#define LIB_MODELS_FAMILIES_UNET_PARTS_H_

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/distorch/named_tensor.h"
#include "lib/models/family.h"
#include "lib/models/vae_model.h"

namespace distorch::models {

// Input channels beside the latent's four.
inline constexpr int64_t kLatentChannels = 4;
inline constexpr int64_t kInpaintChannels = 9;   // a mask and the masked picture's latent
inline constexpr int64_t kInstructChannels = 8;  // the latent of the picture to edit
// ("InstructPix2Pix", Brooks et al., 2023)

// What tells the UNets of the published families apart.
struct UNetTraits {
  int64_t in_channels = 0;            // 0: not a latent-diffusion UNet
  int64_t class_channels = 0;         // of the class embedding's input; 0: none
  bool attends_at_full_size = false;  // before the first downsampling
  bool linear_projection = false;     // of those attentions
  bool has_four_levels = false;       // three downsamplings, not two
};
UNetTraits ReadUNetTraits(const NamedTensors& tensors);

// What a UNet with `in_channels` sees beside the latent when it is given no picture.
std::vector<float> BlankConcat(int64_t in_channels);

// From "first_stage_model.*"; null when there is none.
absl::StatusOr<std::unique_ptr<VaeModel>> BuildKlVae(const NamedTensors& tensors);

// A family whose VAE is BuildKlVae's.
constexpr ModelFamily UNetFamily(std::string_view name, std::span<const KeyRule> keys,
                                 decltype(ModelFamily::matches) matches,
                                 decltype(ModelFamily::build_unet) build_unet,
                                 decltype(ModelFamily::build_clip) build_clip,
                                 int64_t native_side = 1024) {
  return {.name = name,
          .keys = keys,
          .matches = matches,
          .build_unet = build_unet,
          .build_clip = build_clip,
          .build_vae = BuildKlVae,
          .native_side = native_side};
}

}  // namespace distorch::models

#endif  // LIB_MODELS_FAMILIES_UNET_PARTS_H_
