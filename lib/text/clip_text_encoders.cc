#include "lib/text/clip_text_encoders.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/text/clip_tokenizer.h"

namespace distorch::text {
namespace {

constexpr ClipUse kSd1ClipL{.name = "clip_l",
                            .padding = ClipTokenizer::kEnd,
                            .layer = 0,
                            .norm_hidden = true,
                            .project_pooled = false};
constexpr ClipUse kSd2ClipH{
    .name = "clip_h", .padding = 0, .layer = -2, .norm_hidden = true, .project_pooled = true};
constexpr ClipUse kSdxlClipL{.name = "clip_l",
                             .padding = ClipTokenizer::kEnd,
                             .layer = -2,
                             .norm_hidden = false,
                             .project_pooled = false};
constexpr ClipUse kSdxlClipG{
    .name = "clip_g", .padding = 0, .layer = -2, .norm_hidden = false, .project_pooled = true};

}  // namespace

at::Tensor SideBySide(const at::Tensor& a, const at::Tensor& b) {
  const int64_t tokens = std::min(a.size(1), b.size(1));
  return at::cat({a.slice(1, 0, tokens), b.slice(1, 0, tokens)}, 2);
}

SingleClipTextEncoder::SingleClipTextEncoder(const NamedTensors* tensors, std::string_view scope,
                                             const nn::ClipTextConfig& config, const ClipUse& use)
    : TextEncoder(tensors), clip_(nn::Scope(&store(), std::string(scope)), config, use) {}

absl::StatusOr<Conditioning> SingleClipTextEncoder::Encode(std::string_view prompt,
                                                           int stop_at_layer,
                                                           EmbeddingSource* embeddings) const {
  return RunTorchOr<Conditioning>([&]() -> absl::StatusOr<Conditioning> {
    ASSIGN_OR_RETURN(const EncodedText text,
                     clip_.Encode(prompt, stop_at_layer, embeddings, compute()));
    Conditioning result;
    result.cross_attention = text.hidden;
    result.pooled = text.pooled;
    return result;
  });
}

Sd1TextEncoder::Sd1TextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& config)
    : SingleClipTextEncoder(tensors, "clip_l.transformer", config, kSd1ClipL) {}

Sd2TextEncoder::Sd2TextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& config)
    : SingleClipTextEncoder(tensors, "clip_h.transformer", config, kSd2ClipH) {}

SdxlRefinerTextEncoder::SdxlRefinerTextEncoder(const NamedTensors* tensors,
                                               const nn::ClipTextConfig& config)
    : SingleClipTextEncoder(tensors, "clip_g.transformer", config, kSdxlClipG) {}

SdxlTextEncoder::SdxlTextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& clip_l,
                                 const nn::ClipTextConfig& clip_g)
    : TextEncoder(tensors),
      clip_l_(nn::Scope(&store(), "clip_l.transformer"), clip_l, kSdxlClipL),
      clip_g_(nn::Scope(&store(), "clip_g.transformer"), clip_g, kSdxlClipG) {}

absl::StatusOr<Conditioning> SdxlTextEncoder::Encode(std::string_view prompt, int stop_at_layer,
                                                     EmbeddingSource* embeddings) const {
  return RunTorchOr<Conditioning>([&]() -> absl::StatusOr<Conditioning> {
    ASSIGN_OR_RETURN(const EncodedText g,
                     clip_g_.Encode(prompt, stop_at_layer, embeddings, compute()));
    ASSIGN_OR_RETURN(const EncodedText l,
                     clip_l_.Encode(prompt, stop_at_layer, embeddings, compute()));
    Conditioning result;
    result.cross_attention = SideBySide(l.hidden, g.hidden);
    result.pooled = g.pooled;
    return result;
  });
}

}  // namespace distorch::text
