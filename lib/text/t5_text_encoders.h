// The text encoders of the families that have T5 beside CLIP. Weights lie under
// "clip_l.transformer", "clip_g.transformer" and "t5xxl.transformer".
#ifndef LIB_TEXT_T5_TEXT_ENCODERS_H_
#define LIB_TEXT_T5_TEXT_ENCODERS_H_

#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/nn/clip_text.h"
#include "lib/nn/t5.h"
#include "lib/text/text_encoder.h"
#include "lib/text/transformer_encoder.h"

namespace distorch::text {

// "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (Esser et al., 2024):
// CLIP-L's and CLIP-G's last layer but one side by side, filled up with zeros to T5's width, then
// T5's states, along the tokens; `pooled` is CLIP-L's and CLIP-G's side by side.
class Sd3TextEncoder : public TextEncoder {
 public:
  // The width of T5 XXL, which is the conditioning's even without it.
  static constexpr int64_t kWidth = 4096;

  // Those that the checkpoint has, at least one: of a missing CLIP the states and `pooled` are
  // zeros, of a missing T5 there are none.
  struct Configs {
    std::optional<nn::ClipTextConfig> clip_l, clip_g;
    std::optional<nn::T5Config> t5;
  };
  // INVALID_ARGUMENT when there are none, or their widths do not join.
  static absl::Status Check(const Configs& configs);
  Sd3TextEncoder(const NamedTensors* tensors, const Configs& configs);
  absl::StatusOr<Conditioning> Encode(std::string_view prompt, int stop_at_layer,
                                      EmbeddingSource* embeddings) const override;

 private:
  std::optional<ClipEncoder> clip_l_, clip_g_;
  std::optional<T5Encoder> t5_;
};

// FLUX.1: T5's states; `pooled` is CLIP-L's.
class FluxTextEncoder : public TextEncoder {
 public:
  FluxTextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& clip_l,
                  const nn::T5Config& t5);
  absl::StatusOr<Conditioning> Encode(std::string_view prompt, int stop_at_layer,
                                      EmbeddingSource* embeddings) const override;

 private:
  ClipEncoder clip_l_;
  T5Encoder t5_;
};

}  // namespace distorch::text

#endif  // LIB_TEXT_T5_TEXT_ENCODERS_H_
