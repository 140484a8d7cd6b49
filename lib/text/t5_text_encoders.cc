#include "lib/text/t5_text_encoders.h"

#include <ATen/ATen.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/text/clip_text_encoders.h"
#include "lib/text/clip_tokenizer.h"
#include "lib/text/t5_tokenizer.h"

namespace distorch::text {
namespace {

constexpr int64_t kClipLWidth = 768, kClipGWidth = 1280;

constexpr ClipUse kSd3ClipL{.name = "clip_l",
                            .padding = ClipTokenizer::kEnd,
                            .layer = -2,
                            .norm_hidden = false,
                            .project_pooled = false};
constexpr ClipUse kSd3ClipG{
    .name = "clip_g", .padding = 0, .layer = -2, .norm_hidden = false, .project_pooled = true};
constexpr ClipUse kFluxClipL{.name = "clip_l",
                             .padding = ClipTokenizer::kEnd,
                             .layer = 0,
                             .norm_hidden = true,
                             .project_pooled = false};

// The CLIPs' states side by side; zeros before CLIP-G's when there is no CLIP-L. Undefined when
// there is neither.
at::Tensor JoinClips(const at::Tensor& l, const at::Tensor& g) {
  if (!g.defined()) return l;
  return l.defined() ? SideBySide(l, g) : at::constant_pad_nd(g, {kClipLWidth, 0});
}

}  // namespace

absl::Status Sd3TextEncoder::Check(const Configs& configs) {
  const bool has_clip = configs.clip_l || configs.clip_g;
  if (!has_clip && !configs.t5) return absl::InvalidArgumentError("there is no text encoder");
  const int64_t width = (configs.clip_l ? configs.clip_l->width : kClipLWidth) +
                        (configs.clip_g ? configs.clip_g->width : 0);
  if (has_clip && width > kWidth) {
    return absl::InvalidArgumentError(
        absl::StrCat("clip_l and clip_g are ", width, " wide together; allowed: up to ", kWidth));
  }
  if (has_clip && configs.t5 && configs.t5->width != kWidth) {
    return absl::InvalidArgumentError(
        absl::StrCat("t5xxl is ", configs.t5->width, " wide, expected ", kWidth));
  }
  return absl::OkStatus();
}

Sd3TextEncoder::Sd3TextEncoder(const NamedTensors* tensors, const Configs& configs)
    : TextEncoder(tensors) {
  if (configs.clip_l) {
    clip_l_.emplace(nn::Scope(&store(), "clip_l.transformer"), *configs.clip_l, kSd3ClipL);
  }
  if (configs.clip_g) {
    clip_g_.emplace(nn::Scope(&store(), "clip_g.transformer"), *configs.clip_g, kSd3ClipG);
  }
  if (configs.t5) {
    t5_.emplace(nn::Scope(&store(), "t5xxl.transformer"), *configs.t5, T5Tokenizer::kSd3Length);
  }
}

absl::StatusOr<Conditioning> Sd3TextEncoder::Encode(std::string_view prompt, int stop_at_layer,
                                                    EmbeddingSource* embeddings) const {
  return RunTorchOr<Conditioning>([&]() -> absl::StatusOr<Conditioning> {
    EncodedText l{{}, at::zeros({1, kClipLWidth})}, g{{}, at::zeros({1, kClipGWidth})}, t5;
    if (clip_l_) {
      ASSIGN_OR_RETURN(l, clip_l_->Encode(prompt, stop_at_layer, embeddings, compute()));
    }
    if (clip_g_) {
      ASSIGN_OR_RETURN(g, clip_g_->Encode(prompt, stop_at_layer, embeddings, compute()));
    }
    if (t5_) {
      ASSIGN_OR_RETURN(t5, t5_->Encode(prompt, stop_at_layer, embeddings, compute()));
    }
    std::vector<at::Tensor> parts;
    if (const at::Tensor clips = JoinClips(l.hidden, g.hidden); clips.defined()) {
      parts.push_back(at::constant_pad_nd(clips, {0, kWidth - clips.size(2)}));
    }
    if (t5.hidden.defined()) parts.push_back(t5.hidden);
    Conditioning result;
    result.cross_attention = at::cat(parts, 1);
    result.pooled = at::cat({l.pooled, g.pooled}, 1);
    return result;
  });
}

FluxTextEncoder::FluxTextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& clip_l,
                                 const nn::T5Config& t5)
    : TextEncoder(tensors),
      clip_l_(nn::Scope(&store(), "clip_l.transformer"), clip_l, kFluxClipL),
      t5_(nn::Scope(&store(), "t5xxl.transformer"), t5, T5Tokenizer::kFluxLength) {}

absl::StatusOr<Conditioning> FluxTextEncoder::Encode(std::string_view prompt, int stop_at_layer,
                                                     EmbeddingSource* embeddings) const {
  return RunTorchOr<Conditioning>([&]() -> absl::StatusOr<Conditioning> {
    ASSIGN_OR_RETURN(const EncodedText t5,
                     t5_.Encode(prompt, stop_at_layer, embeddings, compute()));
    ASSIGN_OR_RETURN(const EncodedText l,
                     clip_l_.Encode(prompt, stop_at_layer, embeddings, compute()));
    Conditioning result;
    result.cross_attention = t5.hidden;
    result.pooled = l.pooled;
    return result;
  });
}

}  // namespace distorch::text
