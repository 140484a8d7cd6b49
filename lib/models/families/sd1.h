// Stable Diffusion 1.x (Rombach et al., 2022): CLIP-L, a UNet with 8 heads per attention, epsilon
// prediction.
#ifndef LIB_MODELS_FAMILIES_SD1_H_
#define LIB_MODELS_FAMILIES_SD1_H_

#include "lib/models/family.h"

namespace distorch::models {

const ModelFamily& Sd1Family();
// With a mask and a masked picture beside the latent: 9 input channels.
const ModelFamily& Sd1InpaintFamily();
// With the picture to edit beside the latent: 8 input channels (instruct-pix2pix).
const ModelFamily& Sd1InstructFamily();

}  // namespace distorch::models

#endif  // LIB_MODELS_FAMILIES_SD1_H_
