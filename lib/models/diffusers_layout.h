// A checkpoint as diffusers stores it, a folder a model: from its names to the reference's.
#ifndef LIB_MODELS_DIFFUSERS_LAYOUT_H_
#define LIB_MODELS_DIFFUSERS_LAYOUT_H_

#include "lib/checkpoint/tensor_index.h"
#include "lib/distorch/named_tensor.h"

namespace distorch::models {

// True for the index of a diffusers folder (lib/checkpoint/checkpoint_parts.h) with a UNet, an
// MMDiT or a Flux transformer of the names that diffusers gives them.
bool IsDiffusersLayout(const TensorIndex& index);

// Its tensors under the names that all families use ("diffusion_model.", "clip_l.", "clip_g.",
// "clip_h.", "t5xxl.", "first_stage_model."); which text model is which, the diffusion model tells.
// Matrices that the reference fuses are joined; 1 by 1 convolutions that diffusers has as matrices
// get their shape. A tensor that is nothing to the reference is left out. Points into `index`.
NamedTensors MapDiffusersLayout(const TensorIndex& index);

}  // namespace distorch::models

#endif  // LIB_MODELS_DIFFUSERS_LAYOUT_H_
