// Flux (Black Forest Labs, 2024): CLIP-L's pooled output, T5's tokens, the Flux transformer, a
// flow, an autoencoder of 16 channels.
#ifndef LIB_MODELS_FAMILIES_FLUX_H_
#define LIB_MODELS_FAMILIES_FLUX_H_

#include "lib/models/family.h"

namespace distorch::models {

// dev: told of a guidance strength. Also with a control image (canny, depth) or a mask and a masked
// image (fill) beside the latent: 16 or 80 input channels more.
const ModelFamily& FluxFamily();
// schnell: without guidance, noise levels not shifted.
const ModelFamily& FluxSchnellFamily();

}  // namespace distorch::models

#endif  // LIB_MODELS_FAMILIES_FLUX_H_
