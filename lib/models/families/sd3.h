// Stable Diffusion 3 and 3.5 (Esser et al., 2024): up to three text encoders (CLIP-L, CLIP-G, T5),
// an MMDiT, a flow of shift 3, an autoencoder of 16 channels. Medium and large are told apart by
// shapes alone.
#ifndef LIB_MODELS_FAMILIES_SD3_H_
#define LIB_MODELS_FAMILIES_SD3_H_

#include "lib/models/family.h"

namespace distorch::models {

const ModelFamily& Sd3Family();
// With normalised queries and keys.
const ModelFamily& Sd35Family();

}  // namespace distorch::models

#endif  // LIB_MODELS_FAMILIES_SD3_H_
