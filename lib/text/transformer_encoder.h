// One text transformer with its tokenizer and ComfyUI's way of weighting tokens: what the text
// encoders of all families are made of.
#ifndef LIB_TEXT_TRANSFORMER_ENCODER_H_
#define LIB_TEXT_TRANSFORMER_ENCODER_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/nn/clip_text.h"
#include "lib/nn/component.h"
#include "lib/nn/t5.h"
#include "lib/text/text_encoder.h"
#include "lib/text/tokenizer.h"

namespace distorch::text {

// float32, on the CPU.
struct EncodedText {
  at::Tensor hidden;  // [1, tokens, width]
  at::Tensor pooled;  // [1, width] or undefined
};

class TransformerEncoder {
 public:
  virtual ~TransformerEncoder() = default;

  // Encodes every chunk of the prompt, and where a weight differs from 1 moves that token's state
  // away from the state an empty prompt has there: empty + weight · (state − empty). Chunks are
  // joined along the tokens; `pooled` is the first chunk's. An embedding's vectors stand in the
  // place of token embeddings; those that are not as wide are left out, the tokens after them move
  // up. Arguments as TextEncoder::Encode's; throws as LibTorch does.
  absl::StatusOr<EncodedText> Encode(std::string_view prompt, int stop_at_layer,
                                     EmbeddingSource* embeddings,
                                     const nn::ComputeTarget& compute) const;

 protected:
  struct Traits {
    std::string_view name;  // as embeddings call it
    int64_t width;
    int end, padding;  // tokens
  };
  virtual Traits traits() const = 0;
  virtual TokenChunks Tokenize(std::string_view prompt, VectorSource* source) const = 0;
  // [N, T] ids to the transformer's input, on the device to compute on.
  virtual at::Tensor Embed(const at::Tensor& ids, const nn::ComputeTarget& compute) const = 0;
  // [N, T, width] and each row's column of the end token to hidden [N, T, width] and pooled [N, …].
  virtual EncodedText Run(const at::Tensor& embeds, std::span<const int64_t> ends,
                          int stop_at_layer, const nn::ComputeTarget& compute) const = 0;
};

// What a family takes of CLIP.
struct ClipUse {
  std::string_view name;  // as embeddings call it
  int padding;
  int layer;         // as ClipTextModel::Forward's
  bool norm_hidden;  // for layers but the last
  bool project_pooled;
};

class ClipEncoder : public TransformerEncoder {
 public:
  ClipEncoder(const nn::Scope& scope, const nn::ClipTextConfig& config, const ClipUse& use)
      : model_(scope, config), use_(use) {}

 private:
  Traits traits() const override;
  TokenChunks Tokenize(std::string_view prompt, VectorSource* source) const override;
  at::Tensor Embed(const at::Tensor& ids, const nn::ComputeTarget& compute) const override;
  EncodedText Run(const at::Tensor& embeds, std::span<const int64_t> ends, int stop_at_layer,
                  const nn::ComputeTarget& compute) const override;

  nn::ClipTextModel model_;
  ClipUse use_;
};

class T5Encoder : public TransformerEncoder {
 public:
  // Prompts are padded to `min_length` tokens.
  T5Encoder(const nn::Scope& scope, const nn::T5Config& config, size_t min_length)
      : model_(scope, config), min_length_(min_length) {}

 private:
  Traits traits() const override;
  TokenChunks Tokenize(std::string_view prompt, VectorSource* source) const override;
  at::Tensor Embed(const at::Tensor& ids, const nn::ComputeTarget& compute) const override;
  EncodedText Run(const at::Tensor& embeds, std::span<const int64_t> ends, int stop_at_layer,
                  const nn::ComputeTarget& compute) const override;

  nn::T5Model model_;
  size_t min_length_;
};

}  // namespace distorch::text

#endif  // LIB_TEXT_TRANSFORMER_ENCODER_H_
