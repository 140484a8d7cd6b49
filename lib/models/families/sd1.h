// Stable Diffusion 1.x (Rombach et al., 2022): CLIP-L, a UNet with 8 heads per attention, epsilon
// prediction.
#ifndef LIB_MODELS_FAMILIES_SD1_H_
#define LIB_MODELS_FAMILIES_SD1_H_

#include "lib/models/family.h"

namespace distorch::models {

const ModelFamily& Sd1Family();
// The same with a mask and a masked image beside the latent: 9 input channels.
const ModelFamily& Sd1InpaintFamily();

}  // namespace distorch::models

#endif  // LIB_MODELS_FAMILIES_SD1_H_
