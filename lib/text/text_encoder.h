// The text encoders of one checkpoint: prompts to conditionings.
#ifndef LIB_TEXT_TEXT_ENCODER_H_
#define LIB_TEXT_TEXT_ENCODER_H_

#include <ATen/core/Tensor.h>

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/nn/component.h"
#include "lib/text/conditioning.h"

namespace distorch::text {

// Textual inversions ("An Image is Worth One Word", Gal et al., 2022): vectors that a prompt names.
class EmbeddingSource {
 public:
  virtual ~EmbeddingSource() = default;
  // What "embedding:`name`" holds for the text transformer that embeddings call `transformer`
  // ("clip_l", "clip_g", "clip_h", "t5xxl"): [vectors, width] in float32 on the CPU, at least one.
  // NOT_FOUND when there is none; other errors for a file that cannot be used.
  virtual absl::StatusOr<at::Tensor> Load(std::string_view name, std::string_view transformer) = 0;
  // `name` has no part in the conditioning, or not in the whole of it: there is none, or it is not
  // as wide as the transformer.
  virtual void Ignored(std::string_view name, const absl::Status& why) = 0;
};

// The layer that a family uses, for TextEncoder::Encode.
inline constexpr int kFamilysLayer = 0;

// All of a checkpoint's text encoders, placed as one component.
class TextEncoder : public nn::Component {
 public:
  using Component::Component;

  // stop_at_layer: kFamilysLayer, or −1 (the last) and below as
  // CLIPSetLastLayer's, for each of the transformers. Prompts in ComfyUI's syntax; where CLIP needs
  // several chunks, cross_attention is longer. Without `embeddings`, "embedding:name" is text like
  // any other. INVALID_ARGUMENT when the prompt has more tokens than the encoder takes; other
  // errors are LibTorch's (RunTorch).
  virtual absl::StatusOr<Conditioning> Encode(std::string_view prompt, int stop_at_layer,
                                              EmbeddingSource* embeddings) const = 0;
};

}  // namespace distorch::text

#endif  // LIB_TEXT_TEXT_ENCODER_H_
