// The text encoders of the families that have CLIP alone. Weights lie under
// "clip_l.transformer", "clip_g.transformer" and "clip_h.transformer".
#ifndef LIB_TEXT_CLIP_TEXT_ENCODERS_H_
#define LIB_TEXT_CLIP_TEXT_ENCODERS_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "lib/nn/clip_text.h"
#include "lib/text/text_encoder.h"
#include "lib/text/transformer_encoder.h"

namespace distorch::text {

// One CLIP: its states, and `pooled`.
class SingleClipTextEncoder : public TextEncoder {
 public:
  absl::StatusOr<Conditioning> Encode(std::string_view prompt, int stop_at_layer,
                                      EmbeddingSource* embeddings) const override;

 protected:
  SingleClipTextEncoder(const NamedTensors* tensors, std::string_view scope,
                        const nn::ClipTextConfig& config, const ClipUse& use);

 private:
  ClipEncoder clip_;
};

// CLIP-L's last layer.
class Sd1TextEncoder : public SingleClipTextEncoder {
 public:
  Sd1TextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& config);
};

// CLIP-H's last layer but one, after the final norm.
class Sd2TextEncoder : public SingleClipTextEncoder {
 public:
  Sd2TextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& config);
};

// CLIP-G's last layer but one.
class SdxlRefinerTextEncoder : public SingleClipTextEncoder {
 public:
  SdxlRefinerTextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& config);
};

// CLIP-L's and CLIP-G's last layer but one side by side; `pooled` is CLIP-G's.
class SdxlTextEncoder : public TextEncoder {
 public:
  SdxlTextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& clip_l,
                  const nn::ClipTextConfig& clip_g);
  absl::StatusOr<Conditioning> Encode(std::string_view prompt, int stop_at_layer,
                                      EmbeddingSource* embeddings) const override;

 private:
  ClipEncoder clip_l_, clip_g_;
};

// [1, Ta, A] and [1, Tb, B] -> [1, min(Ta, Tb), A + B].
at::Tensor SideBySide(const at::Tensor& a, const at::Tensor& b);

}  // namespace distorch::text

#endif  // LIB_TEXT_CLIP_TEXT_ENCODERS_H_
