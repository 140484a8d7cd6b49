// Prompts to conditionings: tokenizer, text transformer, and ComfyUI's way of weighting tokens.
#ifndef LIB_TEXT_TEXT_ENCODER_H_
#define LIB_TEXT_TEXT_ENCODER_H_

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/nn/clip_text.h"
#include "lib/nn/component.h"
#include "lib/text/conditioning.h"
#include "lib/text/tokenizer.h"

namespace distorch::text {

// The text encoders of one checkpoint, placed as one component.
class TextEncoder : public nn::Component {
 public:
  using Component::Component;

  // `stop_at_layer` ≤ −1 (CLIPSetLastLayer; −1: the last). Prompts of any length; a text of several
  // chunks yields a longer cross_attention. Errors are LibTorch's (RunTorch).
  virtual absl::StatusOr<Conditioning> Encode(std::string_view prompt, int stop_at_layer) const = 0;
};

// SD1's: CLIP-L alone, its last hidden states.
class ClipLTextEncoder : public TextEncoder {
 public:
  ClipLTextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& config);
  absl::StatusOr<Conditioning> Encode(std::string_view prompt, int stop_at_layer) const override;

 private:
  nn::ClipTextModel model_;
};

// Encodes every chunk, and where a weight differs from 1 moves that token's state away from the
// state an empty prompt has there: empty + weight · (state − empty). Chunks are joined along the
// tokens; `pooled` is the first chunk's.
Conditioning EncodeWeighted(const nn::ClipTextModel& model, const TokenChunks& chunks,
                            const TokenChunks& empty, const nn::ComputeTarget& compute,
                            int stop_at_layer);

}  // namespace distorch::text

#endif  // LIB_TEXT_TEXT_ENCODER_H_
