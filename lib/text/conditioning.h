// What a diffusion model is told about the image to make.
#ifndef LIB_TEXT_CONDITIONING_H_
#define LIB_TEXT_CONDITIONING_H_

#include <ATen/core/Tensor.h>

#include <optional>

namespace distorch::text {

// SDXL's micro-conditioning ("SDXL: Improving Latent Diffusion Models", Podell et al., 2023), in
// pixels.
struct SizeConditioning {
  int width = 0, height = 0, crop_w = 0, crop_h = 0, target_width = 0, target_height = 0;
  std::optional<double> aesthetic_score;

  bool operator==(const SizeConditioning&) const = default;
};

// Tensors are float32 on the CPU, batched along dimension 0 (1 serves any batch).
struct Conditioning {
  at::Tensor cross_attention;  // [N, tokens, width]
  at::Tensor pooled;           // [N, width] or undefined
  at::Tensor attention_mask;   // [N, tokens] or undefined
  at::Tensor
      concat;  // [N, C, h, w], what inpainting UNets get beside x; undefined: as without a mask
  std::optional<SizeConditioning> size;
  std::optional<double> guidance;
};

}  // namespace distorch::text

#endif  // LIB_TEXT_CONDITIONING_H_
