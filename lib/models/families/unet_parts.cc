#include "lib/models/families/unet_parts.h"

#include <string_view>

#include "lib/base/status_macros.h"
#include "lib/models/family.h"
#include "lib/models/vae_config.h"

namespace distorch::models {
namespace {

// Empty when there is no such tensor.
std::vector<int64_t> ShapeOf(const NamedTensors& tensors, std::string_view name) {
  auto found = tensors.find(name);
  return found == tensors.end() ? std::vector<int64_t>() : found->second.shape;
}

}  // namespace

UNetTraits ReadUNetTraits(const NamedTensors& tensors) {
  UNetTraits traits;
  const std::vector<int64_t> input = ShapeOf(tensors, "diffusion_model.input_blocks.0.0.weight");
  if (input.size() != 4) return traits;
  traits.in_channels = input[1];
  const std::vector<int64_t> label = ShapeOf(tensors, "diffusion_model.label_emb.0.0.weight");
  if (label.size() == 2) traits.class_channels = label[1];
  const std::vector<int64_t> projection =
      ShapeOf(tensors, "diffusion_model.input_blocks.1.1.proj_in.weight");
  traits.attends_at_full_size = !projection.empty();
  traits.linear_projection = projection.size() == 2;
  traits.has_four_levels = tensors.contains("diffusion_model.input_blocks.9.0.op.weight");
  return traits;
}

std::vector<float> BlankConcat(int64_t in_channels) {
  // Without a mask, the reference's inpainting models see a mask of ones over a blank picture.
  // These are that picture's latent values (mid-grey through SD1's published VAE, scaled).
  if (in_channels == kInpaintChannels) return {1.0f, 0.8223f, -0.6876f, 0.6364f, 0.1380f};
  if (in_channels == kInstructChannels) return {0, 0, 0, 0};
  return {};
}

absl::StatusOr<std::unique_ptr<VaeModel>> BuildKlVae(const NamedTensors& tensors) {
  if (!HasPrefix(tensors, "first_stage_model.")) return nullptr;
  ASSIGN_OR_RETURN(const nn::VaeConfig config, ReadVaeConfig(tensors, kLatentChannels));
  return std::make_unique<VaeModel>(&tensors, config);
}

}  // namespace distorch::models
