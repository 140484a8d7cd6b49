#include "lib/nn/t5.h"

#include <ATen/ATen.h>

#include <cmath>
#include <optional>
#include <utility>

#include "lib/nn/attention.h"

namespace distorch::nn {
namespace {

constexpr double kNormEps = 1e-6;
constexpr int64_t kBuckets = 32;
constexpr double kMaxDistance = 128;

// The bucket of every key's distance from every query, [length, length] int64 on the CPU: half of
// the buckets for keys before the query, half for those after; of each half, one bucket a distance
// for short ones, then logarithmically wider ones up to kMaxDistance.
at::Tensor DistanceBuckets(int64_t length) {
  constexpr int64_t kSide = kBuckets / 2, kExact = kSide / 2;
  const at::Tensor position = at::arange(length, at::kLong);
  const at::Tensor distance = position.unsqueeze(0) - position.unsqueeze(1);
  const at::Tensor magnitude = distance.abs();
  // In float32 as the reference, whose rounding decides at the buckets' edges.
  const at::Tensor wide = at::log(magnitude.to(at::kFloat) / kExact)
                              .div(std::log(kMaxDistance / kExact))
                              .mul(kSide - kExact)
                              .clamp_min(0)
                              .to(at::kLong)
                              .add(kExact)
                              .clamp_max(kSide - 1);
  return at::where(magnitude < kExact, magnitude, wide) + distance.gt(0).to(at::kLong) * kSide;
}

class SelfAttention {
 public:
  // The first block's has the distance biases of all.
  SelfAttention(const Scope& scope, const T5Config& config, bool has_bias)
      : heads_(config.heads),
        scale_(std::sqrt(static_cast<double>(config.head_channels))),
        q_(scope / "q", config.width, config.heads * config.head_channels, false),
        k_(scope / "k", config.width, config.heads * config.head_channels, false),
        v_(scope / "v", config.width, config.heads * config.head_channels, false),
        out_(scope / "o", config.heads * config.head_channels, config.width, false) {
    if (has_bias) bias_.emplace(scope / "relative_attention_bias", kBuckets, config.heads);
  }

  // [1, heads, T, T].
  at::Tensor Bias(int64_t length, const at::Device& device, at::ScalarType dtype) const {
    const at::Tensor buckets = DistanceBuckets(length).to(device);
    return bias_->Forward(buckets, dtype).permute({2, 0, 1}).unsqueeze(0).contiguous();
  }

  at::Tensor Forward(const at::Tensor& x, const at::Tensor& bias) const {
    // T5 does not divide by the root of the head's width.
    return out_.Forward(
        Attention(q_.Forward(x), k_.Forward(x).mul_(scale_), v_.Forward(x), heads_, bias));
  }

 private:
  int64_t heads_;
  double scale_;
  Linear q_, k_, v_, out_;
  std::optional<Embedding> bias_;
};

class GatedFeedForward {
 public:
  GatedFeedForward(const Scope& scope, const T5Config& config)
      : gate_(scope / "wi_0", config.width, config.feed_forward, false),
        value_(scope / "wi_1", config.width, config.feed_forward, false),
        out_(scope / "wo", config.feed_forward, config.width, false) {}

  at::Tensor Forward(const at::Tensor& x) const {
    return out_.Forward(at::gelu(gate_.Forward(x), "tanh").mul_(value_.Forward(x)));
  }

 private:
  Linear gate_, value_, out_;
};

}  // namespace

class T5Block {
 public:
  T5Block(const Scope& scope, const T5Config& config, bool has_bias)
      : attention_(scope / "layer.0.SelfAttention", config, has_bias),
        attention_norm_(scope / "layer.0.layer_norm", config.width, kNormEps),
        feed_forward_(scope / "layer.1.DenseReluDense", config),
        feed_forward_norm_(scope / "layer.1.layer_norm", config.width, kNormEps) {}

  at::Tensor Bias(int64_t length, const at::Device& device, at::ScalarType dtype) const {
    return attention_.Bias(length, device, dtype);
  }

  // x: [N, T, width] in float32; `bias` in the type to compute in.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& bias) const {
    const at::ScalarType dtype = bias.scalar_type();
    const at::Tensor h = x + attention_.Forward(attention_norm_.Forward(x).to(dtype), bias);
    return h + feed_forward_.Forward(feed_forward_norm_.Forward(h).to(dtype));
  }

 private:
  SelfAttention attention_;
  RmsNorm attention_norm_;
  GatedFeedForward feed_forward_;
  RmsNorm feed_forward_norm_;
};

namespace {

std::vector<T5Block> BuildBlocks(const Scope& scope, const T5Config& config) {
  std::vector<T5Block> blocks;
  for (int64_t i = 0; i < config.layers; ++i) blocks.emplace_back(scope / i, config, i == 0);
  return blocks;
}

}  // namespace

T5Model::T5Model(const Scope& scope, const T5Config& config)
    : config_(config),
      blocks_(BuildBlocks(scope / "encoder" / "block", config)),
      final_norm_(scope / "encoder" / "final_layer_norm", config.width, kNormEps),
      shared_(scope / "shared", config.vocabulary, config.width) {}

T5Model::~T5Model() = default;

at::Tensor T5Model::Embed(const at::Tensor& ids, const at::Device& device) const {
  // fp8 files have NaN where an embedding was out of range; the reference reads zero there.
  return at::nan_to_num(shared_.Forward(ids.to(device), at::kFloat));
}

at::Tensor T5Model::Forward(const at::Tensor& embeds, at::ScalarType dtype, int layer) const {
  if (dtype == at::kHalf) dtype = at::kFloat;
  const int64_t count = static_cast<int64_t>(blocks_.size());
  const int64_t used = layer < 0 && -layer <= count ? count + layer + 1 : count;
  const at::Tensor bias = blocks_.front().Bias(embeds.size(1), embeds.device(), dtype);
  at::Tensor x = embeds;
  for (int64_t i = 0; i < used; ++i) x = blocks_[static_cast<size_t>(i)].Forward(x, bias);
  return final_norm_.Forward(x);
}

}  // namespace distorch::nn
