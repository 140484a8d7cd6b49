// Stable Diffusion 2.x: OpenCLIP's ViT-H/14 and a UNet with heads of 64 channels.
#ifndef LIB_MODELS_FAMILIES_SD2_H_
#define LIB_MODELS_FAMILIES_SD2_H_

#include "lib/models/family.h"

namespace distorch::models {

const ModelFamily& Sd2Family();
// Trained to predict the velocity. Shapes do not tell: a norm's bias that the training drove far
// from zero does.
const ModelFamily& Sd2VFamily();
// With a mask and a masked picture beside the latent: 9 input channels.
const ModelFamily& Sd2InpaintFamily();
// With the embedding of a picture beside the text (unCLIP); without one, zeros.
const ModelFamily& Sd2UnclipFamily();

}  // namespace distorch::models

#endif  // LIB_MODELS_FAMILIES_SD2_H_
