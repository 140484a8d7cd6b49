#include "lib/nn/vae.h"

#include <ATen/ATen.h>

#include <optional>
#include <utility>

#include "lib/nn/attention.h"
#include "lib/nn/upsample.h"

namespace distorch::nn {
namespace {

constexpr double kEps = 1e-6;
constexpr Conv2d::Options kPointwise = {.kernel = 1, .padding = 0};

class ResNetBlock {
 public:
  ResNetBlock(const Scope& scope, int64_t in, int64_t out)
      : norm1_(scope / "norm1", in, kEps),
        conv1_(scope / "conv1", in, out, {}),
        norm2_(scope / "norm2", out, kEps),
        conv2_(scope / "conv2", out, out, {}) {
    if (in != out) shortcut_.emplace(scope / "nin_shortcut", in, out, kPointwise);
  }

  at::Tensor Forward(const at::Tensor& x) const {
    at::Tensor h = norm1_.Forward(x);
    h = conv1_.Forward(at::silu_(h));
    h = norm2_.Forward(h);
    h = conv2_.Forward(at::silu_(h));
    return h.add_(shortcut_ ? shortcut_->Forward(x) : x);
  }

 private:
  GroupNorm norm1_;
  Conv2d conv1_;
  GroupNorm norm2_;
  Conv2d conv2_;
  std::optional<Conv2d> shortcut_;
};

// Single-head self-attention over the pixels.
class AttentionBlock {
 public:
  AttentionBlock(const Scope& scope, int64_t channels)
      : norm_(scope / "norm", channels, kEps),
        q_(scope / "q", channels, channels, kPointwise),
        k_(scope / "k", channels, channels, kPointwise),
        v_(scope / "v", channels, channels, kPointwise),
        out_(scope / "proj_out", channels, channels, kPointwise) {}

  at::Tensor Forward(const at::Tensor& x) const {
    const at::Tensor h = norm_.Forward(x);
    const at::Tensor a = Attention(PixelsToTokens(q_.Forward(h)), PixelsToTokens(k_.Forward(h)),
                                   PixelsToTokens(v_.Forward(h)), 1);
    return out_.Forward(TokensToPixels(a, x.size(2), x.size(3))).add_(x);
  }

 private:
  GroupNorm norm_;
  Conv2d q_, k_, v_, out_;
};

struct Middle {
  Middle(const Scope& scope, int64_t channels)
      : block_1(scope / "block_1", channels, channels),
        attention(scope / "attn_1", channels),
        block_2(scope / "block_2", channels, channels) {}

  at::Tensor Forward(const at::Tensor& x) const {
    return block_2.Forward(attention.Forward(block_1.Forward(x)));
  }

  ResNetBlock block_1;
  AttentionBlock attention;
  ResNetBlock block_2;
};

struct Level {
  std::vector<ResNetBlock> blocks;
  std::optional<Conv2d> downsample;        // of the encoder
  std::optional<UpsampleConv2d> upsample;  // of the decoder
};

}  // namespace

struct VaeEncoder::Impl {
  Impl(const Scope& scope, const VaeConfig& config)
      : conv_in(scope / "conv_in", 3, config.channels, {}),
        levels(BuildLevels(scope / "down", config)),
        middle(scope / "mid", config.level_channels.back()),
        norm_out(scope / "norm_out", config.level_channels.back(), kEps),
        conv_out(scope / "conv_out", config.level_channels.back(), 2 * config.latent_channels, {}) {
  }

  static std::vector<Level> BuildLevels(const Scope& scope, const VaeConfig& config) {
    std::vector<Level> levels(config.level_channels.size());
    int64_t in = config.channels;
    for (size_t i = 0; i < levels.size(); ++i) {
      const Scope level = scope / static_cast<int64_t>(i);
      const int64_t out = config.level_channels[i];
      for (int64_t b = 0; b < config.blocks_per_level; ++b) {
        levels[i].blocks.emplace_back(level / "block" / b, in, out);
        in = out;
      }
      if (i + 1 < levels.size()) {
        levels[i].downsample.emplace(level / "downsample" / "conv", out, out,
                                     Conv2d::Options{.stride = 2, .padding = 0});
      }
    }
    return levels;
  }

  Conv2d conv_in;
  std::vector<Level> levels;
  Middle middle;
  GroupNorm norm_out;
  Conv2d conv_out;
};

VaeEncoder::VaeEncoder(const Scope& scope, const VaeConfig& config)
    : impl_(std::make_unique<Impl>(scope, config)) {}
VaeEncoder::~VaeEncoder() = default;

at::Tensor VaeEncoder::Forward(const at::Tensor& x) const {
  // Channels last, as in the UNet.
  at::Tensor h = impl_->conv_in.Forward(x.contiguous(at::MemoryFormat::ChannelsLast));
  for (const Level& level : impl_->levels) {
    for (const ResNetBlock& block : level.blocks) h = block.Forward(h);
    // The published models were trained with padding on the right and the bottom only.
    if (level.downsample) h = level.downsample->Forward(at::constant_pad_nd(h, {0, 1, 0, 1}));
  }
  h = impl_->norm_out.Forward(impl_->middle.Forward(h));
  return impl_->conv_out.Forward(at::silu_(h));
}

struct VaeDecoder::Impl {
  Impl(const Scope& scope, const VaeConfig& config)
      : conv_in(scope / "conv_in", config.latent_channels, config.level_channels.back(), {}),
        middle(scope / "mid", config.level_channels.back()),
        levels(BuildLevels(scope / "up", config)),
        norm_out(scope / "norm_out", config.level_channels.front(), kEps),
        conv_out(scope / "conv_out", config.level_channels.front(), 3, {}) {}

  // Built, as applied, from the smallest level (the highest index) up.
  static std::vector<Level> BuildLevels(const Scope& scope, const VaeConfig& config) {
    std::vector<Level> levels(config.level_channels.size());
    int64_t in = config.level_channels.back();
    for (size_t i = levels.size(); i-- > 0;) {
      const Scope level = scope / static_cast<int64_t>(i);
      const int64_t out = config.level_channels[i];
      for (int64_t b = 0; b < config.decoder_blocks_per_level; ++b) {
        levels[i].blocks.emplace_back(level / "block" / b, in, out);
        in = out;
      }
      if (i > 0) levels[i].upsample.emplace(level / "upsample" / "conv", out, out);
    }
    return levels;
  }

  Conv2d conv_in;
  Middle middle;
  std::vector<Level> levels;
  GroupNorm norm_out;
  Conv2d conv_out;
};

VaeDecoder::VaeDecoder(const Scope& scope, const VaeConfig& config)
    : impl_(std::make_unique<Impl>(scope, config)) {}
VaeDecoder::~VaeDecoder() = default;

at::Tensor VaeDecoder::Forward(const at::Tensor& z) const {
  at::Tensor h = impl_->conv_in.Forward(z.contiguous(at::MemoryFormat::ChannelsLast));
  h = impl_->middle.Forward(h);
  for (size_t i = impl_->levels.size(); i-- > 0;) {
    const Level& level = impl_->levels[i];
    for (const ResNetBlock& block : level.blocks) h = block.Forward(h);
    if (level.upsample) h = level.upsample->Forward(h);
  }
  h = impl_->norm_out.Forward(h);
  return impl_->conv_out.Forward(at::silu_(h));
}

AutoencoderKl::AutoencoderKl(const Scope& scope, const VaeConfig& config)
    : config_(config), encoder_(scope / "encoder", config), decoder_(scope / "decoder", config) {
  if (!config.has_quant_conv) return;
  const int64_t c = config.latent_channels;
  quant_conv_ = std::make_unique<Conv2d>(scope / "quant_conv", 2 * c, 2 * c, kPointwise);
  post_quant_conv_ = std::make_unique<Conv2d>(scope / "post_quant_conv", c, c, kPointwise);
}

at::Tensor AutoencoderKl::Encode(const at::Tensor& x) const {
  at::Tensor moments = encoder_.Forward(x);
  if (quant_conv_) moments = quant_conv_->Forward(moments);
  return moments.slice(1, 0, config_.latent_channels);
}

at::Tensor AutoencoderKl::Decode(const at::Tensor& z) const {
  return decoder_.Forward(post_quant_conv_ ? post_quant_conv_->Forward(z) : z);
}

}  // namespace distorch::nn
