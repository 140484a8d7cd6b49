// Between float images, 8-bit images and latents' previews.
#ifndef LIB_PIPELINE_PIXELS_H_
#define LIB_PIPELINE_PIXELS_H_

#include <ATen/core/Tensor.h>

#include "lib/models/latent_format.h"
#include "lib/nn/taesd.h"
#include "lib/pipeline/image8.h"

namespace distorch::pipeline {

// image: [H, W, 3] float32 in 0…1 on the CPU. Truncates x·255 as the reference's SaveImage does.
Image8 ToImage8(const at::Tensor& image);

// [1, H, W, 3] float32 in 0…1; an alpha channel is dropped.
at::Tensor FromImage8(const Image8& image);

// A rough picture of the first item of `latent` [N, C, h, w] (model's space, any device), a pixel a
// latent pixel.
Image8 LatentPreview(const at::Tensor& latent, const models::LatentFormat& format);

// The same through a tiny decoder, which computes on the latent's device: a pixel an image pixel,
// but shrunk by a whole factor to at most 512 a side. Throws as LibTorch does.
Image8 DecodedPreview(const at::Tensor& latent, const nn::Taesd& decoder);

// `image` [N, H, W, C] to [N, height, width, C], bilinear.
at::Tensor Resize(const at::Tensor& image, int64_t height, int64_t width);

// The same, cropped around the centre to keep its proportions.
at::Tensor ResizeCover(const at::Tensor& image, int64_t height, int64_t width);

}  // namespace distorch::pipeline

#endif  // LIB_PIPELINE_PIXELS_H_
