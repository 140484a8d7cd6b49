#include "lib/pipeline/pixels.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace distorch::pipeline {
namespace {

constexpr int64_t kMaxPreviewSide = 512;

// The three principal components of a latent's pixels [n, C] as colours, in 0…1: what differs in
// the picture differs in colour, whatever the channels mean.
at::Tensor FalseColours(const at::Tensor& pixels) {
  const at::Tensor centred = (pixels - pixels.mean(0)).nan_to_num(0, 0, 0);
  const auto [values, vectors] = at::linalg_eigh(centred.t().mm(centred), "L");
  at::Tensor components = centred.mm(vectors.slice(1, vectors.size(1) - 3).flip(1));
  // An eigenvector's sign is arbitrary: the largest value is bright.
  const at::Tensor largest = components.gather(0, components.abs().argmax(0, /*keepdim=*/true));
  components = components * at::where(largest < 0, -1.0f, 1.0f);
  const at::Tensor low = std::get<0>(components.min(0)), high = std::get<0>(components.max(0));
  return (components - low).div_((high - low).clamp_min(1e-6));
}

at::Tensor RoughColours(const at::Tensor& pixels, const models::LatentFormat& format) {
  at::Tensor to_rgb = at::empty({format.channels, 3}, at::kFloat);
  for (int64_t c = 0; c < format.channels; ++c) {
    for (int64_t k = 0; k < 3; ++k)
      to_rgb[c][k] = format.to_rgb[static_cast<size_t>(c)][static_cast<size_t>(k)];
  }
  const at::Tensor bias = at::tensor(at::ArrayRef<float>(format.rgb_bias.data(), 3));
  return at::addmm(bias, pixels, to_rgb).add_(1).div_(2).clamp_(0, 1);
}

}  // namespace

Image8 ToImage8(const at::Tensor& image) {
  const at::Tensor bytes = image.mul(255).clamp(0, 255).to(at::kByte).contiguous();
  Image8 result;
  result.height = static_cast<int>(bytes.size(0));
  result.width = static_cast<int>(bytes.size(1));
  result.channels = 3;
  result.pixels.resize(static_cast<size_t>(bytes.numel()));
  std::memcpy(result.pixels.data(), bytes.const_data_ptr<uint8_t>(), result.pixels.size());
  return result;
}

at::Tensor FromImage8(const Image8& image) {
  const at::Tensor bytes = at::from_blob(const_cast<uint8_t*>(image.pixels.data()),  // only read
                                         {1, image.height, image.width, image.channels}, at::kByte);
  return bytes.slice(3, 0, 3).to(at::kFloat).div_(255).contiguous();
}

Image8 LatentPreview(const at::Tensor& latent, const models::LatentFormat& format) {
  const at::Tensor first = latent[0].to(at::kCPU).to(at::kFloat).permute({1, 2, 0});  // [h, w, C]
  const at::Tensor pixels = first.flatten(0, 1);
  const at::Tensor colours =
      format.to_rgb.empty() ? FalseColours(pixels) : RoughColours(pixels, format);
  return ToImage8(colours.view({first.size(0), first.size(1), 3}));
}

Image8 DecodedPreview(const at::Tensor& latent, const nn::Taesd& decoder) {
  at::Tensor image = decoder.Decode(latent.slice(0, 0, 1)).clamp_(0, 1);
  const int64_t longest = std::max(image.size(2), image.size(3));
  if (longest > kMaxPreviewSide) {
    const int64_t factor = (longest + kMaxPreviewSide - 1) / kMaxPreviewSide;
    image = at::avg_pool2d(image, {factor, factor}, {}, 0, /*ceil_mode=*/true);
  }
  return ToImage8(image[0].permute({1, 2, 0}).to(at::kCPU));
}

at::Tensor Resize(const at::Tensor& image, int64_t height, int64_t width) {
  if (image.size(1) == height && image.size(2) == width) return image;
  return at::upsample_bilinear2d(image.permute({0, 3, 1, 2}).contiguous(), {height, width},
                                 /*align_corners=*/false)
      .permute({0, 2, 3, 1})
      .clamp(0, 1)
      .contiguous();
}

at::Tensor ResizeCover(const at::Tensor& image, int64_t height, int64_t width) {
  if (image.size(1) == height && image.size(2) == width) return image;
  const double scale = std::max(static_cast<double>(height) / static_cast<double>(image.size(1)),
                                static_cast<double>(width) / static_cast<double>(image.size(2)));
  const auto scaled = [&](int64_t size, int64_t at_least) {
    return std::max(at_least,
                    static_cast<int64_t>(std::llround(static_cast<double>(size) * scale)));
  };
  const int64_t h = scaled(image.size(1), height), w = scaled(image.size(2), width);
  return Resize(image, h, w)
      .narrow(1, (h - height) / 2, height)
      .narrow(2, (w - width) / 2, width)
      .contiguous();
}

}  // namespace distorch::pipeline
