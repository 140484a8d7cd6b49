// How much memory a VAE's operations take, from names and shapes: pure, and free of LibTorch.
#ifndef LIB_MODELS_VAE_WORK_H_
#define LIB_MODELS_VAE_WORK_H_

#include <cstdint>

#include "lib/distorch/step_work.h"

namespace distorch::models {

// The most bytes that one operation reads and writes, of those that decode a latent of [height,
// width] or encode a picture of [height, width] pixels with lib/nn's AutoencoderKl, whose blocks
// `shape` must be.
int64_t DecodeBytesAtOnce(const ModelShape& shape, int64_t height, int64_t width,
                          int64_t element_bytes);
int64_t EncodeBytesAtOnce(const ModelShape& shape, int64_t height, int64_t width,
                          int64_t element_bytes);

}  // namespace distorch::models

#endif  // LIB_MODELS_VAE_WORK_H_
