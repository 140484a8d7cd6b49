// Files of textual inversions ("An Image is Worth One Word", Gal et al., 2022): one or more vectors
// that stand in the place of token embeddings.
#ifndef LIB_TEXT_TEXTUAL_INVERSION_H_
#define LIB_TEXT_TEXTUAL_INVERSION_H_

#include <ATen/core/Tensor.h>

#include <string_view>

#include "absl/status/statusor.h"
#include "lib/checkpoint/checkpoint_file.h"

namespace distorch::text {

// The vectors that `file` has for a text transformer ("clip_l", "clip_g", …): [vectors, width] in
// float32 on the CPU. In this order: "string_to_param.*" (the WebUI's); a tensor of the
// transformer's name (one file for several); those bundled into an adapter,
// "bundle_emb.NAME.string_to_param.*" or "bundle_emb.NAME.clip_l", joined; else the file's first
// tensor. INVALID_ARGUMENT when that has not one or two dimensions, no floating-point numbers, or
// is too large; throws as LibTorch does.
absl::StatusOr<at::Tensor> ReadTextualInversion(const CheckpointFile& file,
                                                std::string_view transformer);

}  // namespace distorch::text

#endif  // LIB_TEXT_TEXTUAL_INVERSION_H_
