#include "lib/pipeline/vae.h"

namespace distorch::pipeline {
namespace {

// What the reference falls back to.
constexpr models::VaeTiling kDecodeFallback = {.tile_size = kFallbackTile, .overlap = 128};
constexpr models::VaeTiling kEncodeFallback = {.tile_size = kFallbackTile, .overlap = 64};

template <typename Whole, typename Tiled>
absl::StatusOr<at::Tensor> Run(const VaeOptions& options, const models::VaeTiling& fallback,
                               Whole whole, Tiled tiled) {
  if (options.tile_size > 0) return tiled(models::VaeTiling{.tile_size = options.tile_size});
  return options.falls_back ? tiled(fallback) : whole();
}

}  // namespace

absl::StatusOr<at::Tensor> DecodeLatents(const models::VaeModel& vae, const at::Tensor& latents,
                                         const VaeOptions& options, const CancelToken& cancel) {
  return Run(
      options, kDecodeFallback, [&] { return vae.Decode(latents, cancel); },
      [&](const models::VaeTiling& tiling) { return vae.DecodeTiled(latents, tiling, cancel); });
}

absl::StatusOr<at::Tensor> EncodeImages(const models::VaeModel& vae, const at::Tensor& images,
                                        const VaeOptions& options, const CancelToken& cancel) {
  return Run(
      options, kEncodeFallback, [&] { return vae.Encode(images, cancel); },
      [&](const models::VaeTiling& tiling) { return vae.EncodeTiled(images, tiling, cancel); });
}

}  // namespace distorch::pipeline
