#include "lib/pipeline/vae.h"

#include "absl/strings/str_cat.h"

namespace distorch::pipeline {
namespace {

// What the reference falls back to.
constexpr models::VaeTiling kDecodeFallback = {.tile_size = 512, .overlap = 128};
constexpr models::VaeTiling kEncodeFallback = {.tile_size = 512, .overlap = 64};

template <typename Whole, typename Tiled>
absl::StatusOr<at::Tensor> Run(std::string_view what, const VaeOptions& options,
                               const models::VaeTiling& fallback, Whole whole, Tiled tiled) {
  if (options.tile_size > 0) return tiled(models::VaeTiling{.tile_size = options.tile_size});
  absl::StatusOr<at::Tensor> result = whole();
  if (!absl::IsResourceExhausted(result.status())) return result;
  if (options.warn) {
    options.warn(absl::StrCat("no memory to ", what, " at once, going on by tiles of ",
                              fallback.tile_size, " pixels: ", result.status().message()));
  }
  return tiled(fallback);
}

}  // namespace

absl::StatusOr<at::Tensor> DecodeLatents(const models::VaeModel& vae, const at::Tensor& latents,
                                         const VaeOptions& options, const CancelToken& cancel) {
  return Run(
      "decode an image", options, kDecodeFallback, [&] { return vae.Decode(latents, cancel); },
      [&](const models::VaeTiling& tiling) { return vae.DecodeTiled(latents, tiling, cancel); });
}

absl::StatusOr<at::Tensor> EncodeImages(const models::VaeModel& vae, const at::Tensor& images,
                                        const VaeOptions& options, const CancelToken& cancel) {
  return Run(
      "encode an image", options, kEncodeFallback, [&] { return vae.Encode(images, cancel); },
      [&](const models::VaeTiling& tiling) { return vae.EncodeTiled(images, tiling, cancel); });
}

}  // namespace distorch::pipeline
