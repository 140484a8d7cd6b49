// What inpainting and editing add to sampling: masks from pictures, and what such models see beside
// the latent. Masks are 1 where to repaint.
#ifndef LIB_PIPELINE_INPAINT_H_
#define LIB_PIPELINE_INPAINT_H_

#include <ATen/core/Tensor.h>

#include "lib/models/diffusion_model.h"
#include "lib/pipeline/image8.h"

namespace distorch::pipeline {

// [1, H, W, 1]: a picture's red, white being 1; what is transparent counts as black.
at::Tensor MaskFromColour(const Image8& image);

// [1, H, W, 1]: 1 where a picture is transparent. Undefined when it is opaque everywhere.
at::Tensor MaskFromAlpha(const Image8& image);

// `image` [1, H, W, 3], grey (the middle of a VAE's range: how the published models were shown
// "nothing") under `mask` [1, 1, H, W], rounded.
at::Tensor HideUnder(const at::Tensor& image, const at::Tensor& mask);

// Whether HideUnder and ConcatOf say what the model's extra channels take; false for models without
// such channels, or with channels that take something else.
bool TakesMask(const models::DiffusionModel& model);

// Conditioning::concat for a latent [N, C, h, w] in the model's space and a mask [M, 1, H, W] of
// any size, M being 1 or N: of UNets the mask, then the latent; of Flux the latent, then the mask
// at the image's size. Needs TakesMask.
at::Tensor ConcatOf(const models::DiffusionModel& model, const at::Tensor& latent,
                    const at::Tensor& mask);

// Whether the model edits a picture that it sees whole: its extra channels take a latent and
// nothing else (InstructPix2Pix, CosXL Edit, Flux's control models).
bool TakesPicture(const models::DiffusionModel& model);

// Conditioning::concat for the picture's latent, in the user's space. Needs TakesPicture.
at::Tensor ConcatOfPicture(const models::DiffusionModel& model, const at::Tensor& latent);

}  // namespace distorch::pipeline

#endif  // LIB_PIPELINE_INPAINT_H_
