#include "lib/models/vae_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/models/tiling.h"

namespace distorch::models {
namespace {

// `step`, which yields a tensor or a status, on each item of the batch, joined.
template <typename Step>
absl::StatusOr<at::Tensor> OneByOne(const at::Tensor& batch, const CancelToken& cancel, Step step) {
  return RunTorchOr<at::Tensor>([&]() -> absl::StatusOr<at::Tensor> {
    std::vector<at::Tensor> results;
    for (int64_t i = 0; i < batch.size(0); ++i) {
      RETURN_IF_ERROR(cancel.Check());
      absl::StatusOr<at::Tensor> result = step(batch.slice(0, i, i + 1));
      RETURN_IF_ERROR(result.status());
      results.push_back(*std::move(result));
    }
    return at::cat(results);
  });
}

// [1, 3, H, W] in -1…1 to [1, H, W, 3] in 0…1, and back.
at::Tensor ToImage(const at::Tensor& decoded) {
  return decoded.add(1).div_(2).clamp_(0, 1).permute({0, 2, 3, 1}).contiguous();
}

at::Tensor FromImage(const at::Tensor& image) {
  return image.permute({0, 3, 1, 2}).mul(2).sub_(1).contiguous();
}

TileGrid GridOf(const VaeTiling& tiling, int64_t downscale) {
  const int64_t overlap = std::min(tiling.overlap, tiling.tile_size / 4);
  return {.tile = tiling.tile_size / downscale, .overlap = overlap / downscale};
}

at::Tensor CropToMultiple(const at::Tensor& images, int64_t dim, int64_t multiple) {
  const int64_t size = images.size(dim) / multiple * multiple;
  return images.narrow(dim, (images.size(dim) % multiple) / 2, size);
}

}  // namespace

VaeModel::VaeModel(const NamedTensors* tensors, const nn::VaeConfig& config)
    : Component(tensors), vae_(nn::Scope(&store(), "first_stage_model"), config) {}

at::Tensor VaeModel::DecodeOne(const at::Tensor& latent) const {
  return vae_.Decode(latent.to(compute().device).to(compute().dtype)).to(at::kCPU).to(at::kFloat);
}

at::Tensor VaeModel::EncodeOne(const at::Tensor& image) const {
  return vae_.Encode(image.to(compute().device).to(compute().dtype))
      .to(at::kCPU)
      .to(at::kFloat)
      .contiguous();
}

at::Tensor VaeModel::CropToCells(const at::Tensor& images) const {
  return CropToMultiple(CropToMultiple(images, 1, downscale()), 2, downscale());
}

absl::StatusOr<at::Tensor> VaeModel::Decode(const at::Tensor& latents,
                                            const CancelToken& cancel) const {
  return OneByOne(latents, cancel,
                  [this](const at::Tensor& latent) { return ToImage(DecodeOne(latent)); });
}

absl::StatusOr<at::Tensor> VaeModel::Encode(const at::Tensor& images,
                                            const CancelToken& cancel) const {
  return OneByOne(CropToCells(images), cancel,
                  [this](const at::Tensor& image) { return EncodeOne(FromImage(image)); });
}

absl::StatusOr<at::Tensor> VaeModel::DecodeTiled(const at::Tensor& latents, const VaeTiling& tiling,
                                                 const CancelToken& cancel) const {
  TileGrid grid = GridOf(tiling, downscale());
  grid.out_pixels = downscale();
  return OneByOne(latents, cancel, [&](const at::Tensor& latent) -> absl::StatusOr<at::Tensor> {
    ASSIGN_OR_RETURN(
        const at::Tensor decoded,
        ByTiles(latent, grid, cancel, [this](const at::Tensor& tile) { return DecodeOne(tile); }));
    return ToImage(decoded);
  });
}

absl::StatusOr<at::Tensor> VaeModel::EncodeTiled(const at::Tensor& images, const VaeTiling& tiling,
                                                 const CancelToken& cancel) const {
  TileGrid grid = GridOf(tiling, downscale());
  grid.in_pixels = downscale();
  return OneByOne(CropToCells(images), cancel, [&](const at::Tensor& image) {
    return ByTiles(FromImage(image), grid, cancel,
                   [this](const at::Tensor& tile) { return EncodeOne(tile); });
  });
}

}  // namespace distorch::models
