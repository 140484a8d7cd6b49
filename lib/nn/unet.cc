#include "lib/nn/unet.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "lib/nn/attention.h"
#include "lib/nn/unit.h"
#include "lib/nn/upsample.h"

namespace distorch::nn {
namespace {

constexpr double kResNetEps = 1e-5;
constexpr double kTransformerNormEps = 1e-6;

// GroupNorm, SiLU, Conv, twice, with the time embedding added between and a skip connection around.
class ResNetBlock {
 public:
  ResNetBlock(const Scope& scope, int64_t in, int64_t out, int64_t embed)
      : in_norm_(scope / "in_layers" / 0, in, kResNetEps),
        in_conv_(scope / "in_layers" / 2, in, out, {}),
        embed_(scope / "emb_layers" / 1, embed, out),
        out_norm_(scope / "out_layers" / 0, out, kResNetEps),
        out_conv_(scope / "out_layers" / 3, out, out, {}) {
    if (in != out)
      skip_.emplace(scope / "skip_connection", in, out, Conv2d::Options{.kernel = 1, .padding = 0});
  }

  // `skip` continues x's channels where it is defined; `embedding`: SiLU of the time embedding,
  // [N, embed].
  at::Tensor Forward(at::Tensor x, at::Tensor skip, const at::Tensor& embedding) const {
    if (skip.defined()) x = at::cat({x, std::exchange(skip, {})}, 1);
    at::Tensor h = in_norm_.Forward(x);
    h = in_conv_.Forward(at::silu_(h));
    h.add_(embed_.Forward(embedding).unsqueeze(-1).unsqueeze(-1));
    h = out_norm_.Forward(h);
    h = out_conv_.Forward(at::silu_(h));
    return h.add_(skip_ ? skip_->Forward(x) : x);
  }

 private:
  GroupNorm in_norm_;
  Conv2d in_conv_;
  Linear embed_;
  GroupNorm out_norm_;
  Conv2d out_conv_;
  std::optional<Conv2d> skip_;
};

// Multi-head attention with its projections; self-attention when `context` is x.
class CrossAttention {
 public:
  CrossAttention(const Scope& scope, int64_t width, int64_t context_width, int64_t heads)
      : heads_(heads),
        to_q_(scope / "to_q", width, width, false),
        to_k_(scope / "to_k", context_width, width, false),
        to_v_(scope / "to_v", context_width, width, false),
        to_out_(scope / "to_out" / 0, width, width) {}

  at::Tensor Forward(const at::Tensor& x, const at::Tensor& context) const {
    return to_out_.Forward(
        Attention(to_q_.Forward(x), to_k_.Forward(context), to_v_.Forward(context), heads_));
  }

 private:
  int64_t heads_;
  Linear to_q_, to_k_, to_v_, to_out_;
};

// "GLU Variants Improve Transformer" (Shazeer, 2020): value · gelu(gate), then back to the width.
class GegluFeedForward {
 public:
  GegluFeedForward(const Scope& scope, int64_t width)
      : in_(scope / "net" / 0 / "proj", width, 8 * width),
        out_(scope / "net" / 2, 4 * width, width) {}

  at::Tensor Forward(const at::Tensor& x) const {
    const std::vector<at::Tensor> halves = in_.Forward(x).chunk(2, -1);
    return out_.Forward(halves[0] * at::gelu(halves[1]));
  }

 private:
  Linear in_, out_;
};

class TransformerBlock {
 public:
  // Members are declared in the order of the reference's modules: norm2 before norm1.
  TransformerBlock(const Scope& scope, int64_t width, int64_t context_width, int64_t heads)
      : self_attention_(scope / "attn1", width, width, heads),
        feed_forward_(scope / "ff", width),
        cross_attention_(scope / "attn2", width, context_width, heads),
        norm2_(scope / "norm2", width),
        norm1_(scope / "norm1", width),
        norm3_(scope / "norm3", width) {}

  at::Tensor Forward(at::Tensor x, const at::Tensor& context) const {
    const at::Tensor normed = norm1_.Forward(x);
    x = x + self_attention_.Forward(normed, normed);
    x.add_(cross_attention_.Forward(norm2_.Forward(x), context));
    x.add_(feed_forward_.Forward(norm3_.Forward(x)));
    return x;
  }

 private:
  CrossAttention self_attention_;
  GegluFeedForward feed_forward_;
  CrossAttention cross_attention_;
  LayerNorm norm2_, norm1_, norm3_;
};

// Transformer blocks over the pixels of a feature map, with a residual around.
class SpatialTransformer {
 public:
  SpatialTransformer(const Scope& scope, int64_t channels, int64_t depth, const UNetConfig& config)
      : norm_(scope / "norm", channels, kTransformerNormEps) {
    const int64_t heads = config.heads > 0 ? config.heads : channels / config.head_channels;
    if (config.linear_projection) {
      linear_in_.emplace(scope / "proj_in", channels, channels);
    } else {
      conv_in_.emplace(scope / "proj_in", channels, channels, kPointwise);
    }
    for (int64_t i = 0; i < depth; ++i) {
      blocks_.emplace_back(scope / "transformer_blocks" / i, channels, config.context_width, heads);
    }
    if (config.linear_projection) {
      linear_out_.emplace(scope / "proj_out", channels, channels);
    } else {
      conv_out_.emplace(scope / "proj_out", channels, channels, kPointwise);
    }
  }

  at::Tensor Forward(const at::Tensor& x, const at::Tensor& context) const {
    const auto to_map = [&](const at::Tensor& tokens) {
      return TokensToPixels(tokens, x.size(2), x.size(3));
    };
    at::Tensor h = norm_.Forward(x);
    h = linear_in_ ? linear_in_->Forward(PixelsToTokens(h)) : PixelsToTokens(conv_in_->Forward(h));
    for (const TransformerBlock& block : blocks_) h = block.Forward(std::move(h), context);
    h = linear_out_ ? to_map(linear_out_->Forward(h)) : conv_out_->Forward(to_map(h));
    return h + x;
  }

 private:
  static constexpr Conv2d::Options kPointwise = {.kernel = 1, .padding = 0};

  GroupNorm norm_;
  std::optional<Linear> linear_in_;
  std::optional<Conv2d> conv_in_;
  std::vector<TransformerBlock> blocks_;
  std::optional<Linear> linear_out_;
  std::optional<Conv2d> conv_out_;
};

}  // namespace

// What one index of input_blocks or output_blocks holds: at most one of each, applied in this
// order. Each is a unit.
class UNetBlock {
 public:
  static std::unique_ptr<UNetBlock> Create(const Scope& scope, const UNetBlockConfig& block,
                                           const UNetConfig& config) {
    auto result = std::make_unique<UNetBlock>();
    using Kind = UNetBlockConfig::Kind;
    if (block.kind == Kind::kConvIn)
      result->conv_.emplace(scope / 0, block.in_channels, block.out_channels, Conv2d::Options{});
    if (block.kind == Kind::kDownsample) {
      result->conv_.emplace(scope / 0 / "op", block.in_channels, block.out_channels,
                            Conv2d::Options{.stride = 2});
    }
    int64_t next = 0;
    if (block.kind == Kind::kResNet) {
      result->resnet_.emplace(scope / next++, block.in_channels, block.out_channels,
                              config.time_embed_channels);
    }
    if (block.transformer_depth > 0) {
      result->transformer_.emplace(scope / next++, block.out_channels, block.transformer_depth,
                                   config);
    }
    if (block.upsample) {
      result->upsample_.emplace(scope / next++ / "conv", block.out_channels, block.out_channels);
    }
    return result;
  }
  static std::unique_ptr<UNetBlock> OfResNet(const Scope& scope, int64_t channels,
                                             const UNetConfig& config) {
    auto result = std::make_unique<UNetBlock>();
    result->resnet_.emplace(scope, channels, channels, config.time_embed_channels);
    return result;
  }
  static std::unique_ptr<UNetBlock> OfTransformer(const Scope& scope, int64_t channels,
                                                  int64_t depth, const UNetConfig& config) {
    auto result = std::make_unique<UNetBlock>();
    result->transformer_.emplace(scope, channels, depth, config);
    return result;
  }

  // `skip`: what an output block continues, else undefined. `upsample_to`: the size an upsampling
  // ends at (the next skip connection's, which an odd size makes differ from 2×).
  at::Tensor Forward(Pass& pass, at::Tensor x, at::Tensor skip, Shared& embedding, Shared& context,
                     at::OptionalIntArrayRef upsample_to) const {
    if (conv_) x = conv_->Forward(pass, std::move(x));
    if (resnet_) x = resnet_->Forward(pass, std::move(x), std::move(skip), embedding);
    if (transformer_) x = transformer_->Forward(pass, std::move(x), context);
    if (upsample_) x = upsample_->Forward(pass, std::move(x), upsample_to);
    return x;
  }

 private:
  std::optional<Unit<Conv2d>> conv_;
  std::optional<Unit<ResNetBlock>> resnet_;
  std::optional<Unit<SpatialTransformer>> transformer_;
  std::optional<Unit<UpsampleConv2d>> upsample_;
};

namespace {

std::vector<std::unique_ptr<UNetBlock>> BuildBlocks(const Scope& scope,
                                                    const std::vector<UNetBlockConfig>& blocks,
                                                    const UNetConfig& config) {
  std::vector<std::unique_ptr<UNetBlock>> result;
  for (size_t i = 0; i < blocks.size(); ++i) {
    result.push_back(UNetBlock::Create(scope / static_cast<int64_t>(i), blocks[i], config));
  }
  return result;
}

std::vector<std::unique_ptr<UNetBlock>> BuildMiddle(const Scope& scope, const UNetConfig& config) {
  std::vector<std::unique_ptr<UNetBlock>> result;
  if (config.middle == UNetConfig::Middle::kNone) return result;
  result.push_back(UNetBlock::OfResNet(scope / 0, config.middle_channels, config));
  if (config.middle == UNetConfig::Middle::kResNet) return result;
  result.push_back(UNetBlock::OfTransformer(scope / 1, config.middle_channels,
                                            config.middle_transformer_depth, config));
  result.push_back(UNetBlock::OfResNet(scope / 2, config.middle_channels, config));
  return result;
}

std::optional<Linear> LabelEmbed(const Scope& scope, int64_t in, const UNetConfig& config) {
  if (config.class_channels == 0) return std::nullopt;
  return Linear(scope, in, config.time_embed_channels);
}

}  // namespace

at::Tensor TimestepEmbedding(const at::Tensor& timesteps, int64_t width, double max_period) {
  const int64_t half = width / 2;
  // Rounded where the reference rounds: a large timestep would show the difference.
  const at::Tensor frequencies =
      at::exp(at::arange(half, timesteps.options()) * -std::log(max_period) / half);
  const at::Tensor angles = timesteps.unsqueeze(1) * frequencies.unsqueeze(0);
  at::Tensor embedding = at::cat({at::cos(angles), at::sin(angles)}, -1);
  return width % 2 == 0 ? embedding : at::constant_pad_nd(embedding, {0, 1});
}

UNet::UNet(const Scope& scope, const UNetConfig& config)
    : config_(config),
      time_embed_0_(scope / "time_embed" / 0, config.model_channels, config.time_embed_channels),
      time_embed_2_(scope / "time_embed" / 2, config.time_embed_channels,
                    config.time_embed_channels),
      label_embed_0_(LabelEmbed(scope / "label_emb" / 0 / 0, config.class_channels, config)),
      label_embed_2_(LabelEmbed(scope / "label_emb" / 0 / 2, config.time_embed_channels, config)),
      input_blocks_(BuildBlocks(scope / "input_blocks", config.input_blocks, config)),
      middle_(BuildMiddle(scope / "middle_block", config)),
      output_blocks_(BuildBlocks(scope / "output_blocks", config.output_blocks, config)),
      out_norm_(scope / "out" / 0, config.model_channels, kResNetEps),
      out_conv_(scope / "out" / 2, config.model_channels, config.out_channels, {}) {}

UNet::~UNet() = default;

at::Tensor UNet::Forward(const at::Tensor& x, const at::Tensor& timesteps,
                         const at::Tensor& context, const at::Tensor& vector) const {
  at::Tensor embedding = TimestepEmbedding(timesteps, config_.model_channels).to(x.scalar_type());
  embedding = time_embed_0_.Forward(embedding);
  embedding = time_embed_2_.Forward(at::silu_(embedding));
  if (label_embed_0_)
    embedding.add_(label_embed_2_->Forward(at::silu(label_embed_0_->Forward(vector))));
  at::silu_(embedding);  // every ResNet block starts from it

  Pass pass(x);
  Shared shared_embedding(std::move(embedding)), shared_context(context);
  // Channels last: what convolutions are fastest with, and a feature map's pixels are tokens as
  // they lie.
  at::Tensor h = x.contiguous(at::MemoryFormat::ChannelsLast);
  std::vector<at::Tensor> skips;
  for (const auto& block : input_blocks_) {
    h = block->Forward(pass, std::move(h), {}, shared_embedding, shared_context, std::nullopt);
    skips.push_back(h);
  }
  for (const auto& block : middle_)
    h = block->Forward(pass, std::move(h), {}, shared_embedding, shared_context, std::nullopt);
  for (const auto& block : output_blocks_) {
    at::Tensor skip = std::move(skips.back());
    skips.pop_back();
    at::OptionalIntArrayRef upsample_to;
    if (!skips.empty()) upsample_to = skips.back().sizes().slice(2);
    h = block->Forward(pass, std::move(h), std::move(skip), shared_embedding, shared_context,
                       upsample_to);
  }
  h = out_norm_.Forward(pass.Home(std::move(h)));
  return out_conv_.Forward(at::silu_(h));
}

}  // namespace distorch::nn
