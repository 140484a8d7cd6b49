// From a file's tensor names to the reference's module names, which the rest of the program uses.
#ifndef LIB_MODELS_KEY_MAP_H_
#define LIB_MODELS_KEY_MAP_H_

#include <span>
#include <string_view>

#include "lib/checkpoint/tensor_index.h"
#include "lib/distorch/named_tensor.h"

namespace distorch::models {

// Adds to `named` what the file's `tensor` is in the reference; `name` is what followed the rule's
// `from`, `to` the rule's. A tensor that is nothing to the reference adds nothing.
using KeyConversion = void (*)(std::string_view name, const TensorInfo& tensor, std::string_view to,
                               NamedTensors* named);

// Names that start with `from` start with `to` instead, and the rest is converted where a layout
// differs in more than that. The first rule that matches wins.
struct KeyRule {
  std::string_view from, to;
  KeyConversion convert = nullptr;
};

// What the layouts of all families have in common.
inline constexpr KeyRule kDiffusionModelKeys = {"model.diffusion_model.", "diffusion_model."};
inline constexpr KeyRule kVaeKeys = {"first_stage_model.", "first_stage_model."};
// The last rule: in a file of the diffusion model alone, names have no prefix.
inline constexpr KeyRule kBareDiffusionModelKeys = {"", "diffusion_model."};

// A text model in the layout of OpenCLIP (https://github.com/mlfoundations/open_clip), to Hugging
// Face's under TO"transformer.": the joint input projection cut in three, the text projection
// transposed. Names that are Hugging Face's already stay.
void ConvertOpenClip(std::string_view name, const TensorInfo& tensor, std::string_view to,
                     NamedTensors* named);

// The tensors of `index` that some rule matches, under their new names; those of a diffusers folder
// by that layout's rules (lib/models/diffusers_layout.h). Points into `index`.
NamedTensors MapKeys(const TensorIndex& index, std::span<const KeyRule> rules);

}  // namespace distorch::models

#endif  // LIB_MODELS_KEY_MAP_H_
