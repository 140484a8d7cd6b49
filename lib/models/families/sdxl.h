// Stable Diffusion XL ("SDXL: Improving Latent Diffusion Models", Podell et al., 2023): CLIP-L and
// OpenCLIP's ViT-bigG/14, a UNet that is told the picture's size. Its distillations (SSD-1B, Vega,
// KOALA) are the same with other depths, which come from shapes. What the UNet predicts is told by
// marker tensors, in each of the families: v_pred and ztsnr; edm_mean and edm_std (Playground
// v2.5); edm_vpred.* (CosXL).
#ifndef LIB_MODELS_FAMILIES_SDXL_H_
#define LIB_MODELS_FAMILIES_SDXL_H_

#include "lib/models/family.h"

namespace distorch::models {

const ModelFamily& SdxlFamily();
// Predicts the velocity.
const ModelFamily& SdxlVFamily();
// Trained at the noise levels of Karras et al. (2022).
const ModelFamily& SdxlEdmFamily();
// With a mask and a masked picture beside the latent: 9 input channels.
const ModelFamily& SdxlInpaintFamily();
// With the picture to edit beside the latent: 8 input channels (instruct-pix2pix, CosXL Edit).
const ModelFamily& SdxlInstructFamily();
// The second stage: ViT-bigG/14 alone, four levels, an aesthetic score beside the size.
const ModelFamily& SdxlRefinerFamily();

}  // namespace distorch::models

#endif  // LIB_MODELS_FAMILIES_SDXL_H_
