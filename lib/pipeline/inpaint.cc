#include "lib/pipeline/inpaint.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace distorch::pipeline {
namespace {

// [1, H, W, channels] in 0…1.
at::Tensor Channels(const Image8& image) {
  return at::from_blob(const_cast<uint8_t*>(image.pixels.data()),  // only read
                       {1, image.height, image.width, image.channels}, at::kByte)
      .to(at::kFloat)
      .div_(255);
}

// The mask's pixels as channels of the latent's.
int64_t PackedMaskChannels(const models::LatentFormat& format) {
  return format.downscale * format.downscale;
}

}  // namespace

at::Tensor MaskFromColour(const Image8& image) {
  const at::Tensor channels = Channels(image);
  const at::Tensor red = channels.narrow(3, 0, 1);
  return image.channels == 4 ? red * channels.narrow(3, 3, 1) : red.contiguous();
}

at::Tensor MaskFromAlpha(const Image8& image) {
  if (image.channels < 4) return {};
  const at::Tensor mask = 1 - Channels(image).narrow(3, 3, 1);
  return mask.any().item<bool>() ? mask : at::Tensor();
}

at::Tensor HideUnder(const at::Tensor& image, const at::Tensor& mask) {
  const at::Tensor visible = 1 - mask.round().permute({0, 2, 3, 1});
  return (image - 0.5) * visible + 0.5;
}

bool TakesMask(const models::DiffusionModel& model) {
  const models::LatentFormat& format = model.latent_format();
  const int64_t mask_channels = model.concat_channels() - format.channels;
  return mask_channels == 1 || mask_channels == PackedMaskChannels(format);
}

at::Tensor ConcatOf(const models::DiffusionModel& model, const at::Tensor& latent,
                    const at::Tensor& mask) {
  const models::LatentFormat& format = model.latent_format();
  const bool packed = model.concat_channels() - format.channels == PackedMaskChannels(format);
  const int64_t unit = packed ? format.downscale : 1;
  const int64_t height = latent.size(2) * unit, width = latent.size(3) * unit;
  at::Tensor resized = mask;
  if (mask.size(2) != height || mask.size(3) != width)
    resized = at::upsample_bilinear2d(mask, {height, width}, /*align_corners=*/false);
  if (resized.size(0) != latent.size(0)) resized = resized.expand({latent.size(0), -1, -1, -1});
  if (packed) return at::cat({latent, at::pixel_unshuffle(resized, unit)}, 1);
  return at::cat({resized.round(), latent}, 1);
}

bool TakesPicture(const models::DiffusionModel& model) {
  return model.concat_channels() == model.latent_format().channels;
}

at::Tensor ConcatOfPicture(const models::DiffusionModel& model, const at::Tensor& latent) {
  return model.edits_in_model_space() ? model.latent_format().ToModel(latent) : latent;
}

}  // namespace distorch::pipeline
