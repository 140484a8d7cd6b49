#include "lib/nn/flux.h"

#include <ATen/ATen.h>

#include <array>
#include <string>
#include <utility>

#include "lib/nn/attention.h"
#include "lib/nn/rotary.h"
#include "lib/nn/unet.h"
#include "lib/nn/unit.h"

namespace distorch::nn {
namespace {

constexpr int64_t kHeadChannels = 128;
constexpr std::array<int64_t, 3> kAxes = {16, 56, 56};
constexpr int64_t kTimeChannels = 256;
constexpr double kTimeScale = 1000;
constexpr int64_t kMlpRatio = 4;
constexpr double kQkNormEps = 1e-6;

// The chunks of a stream's modulation.
enum Chunk { kShift, kScale, kGate, kMlpShift, kMlpScale, kMlpGate };

// Queries, keys and values, each [N, T, heads, channels].
using Qkv = std::array<at::Tensor, 3>;

class QkNorm {
 public:
  explicit QkNorm(const Scope& scope)
      : query_(scope / "query_norm", kHeadChannels, kQkNormEps, "scale"),
        key_(scope / "key_norm", kHeadChannels, kQkNormEps, "scale") {}

  // qkv: [N, T, 3 · width].
  Qkv Split(const at::Tensor& qkv) const {
    const std::vector<at::Tensor> parts = qkv.unflatten(-1, {3, -1, kHeadChannels}).unbind(2);
    return {query_.Forward(parts[0]), key_.Forward(parts[1]), parts[2]};
  }

 private:
  RmsNorm query_, key_;
};

// [N, T, width].
at::Tensor Attend(const Qkv& qkv, const RotaryTable& rotary) {
  return Attention(Rotate(qkv[0], rotary).flatten(-2), Rotate(qkv[1], rotary).flatten(-2),
                   qkv[2].flatten(-2), qkv[0].size(2));
}

// The largest activations leave float16's range.
void ClampHalf(at::Tensor& x) {
  constexpr double kLargestHalf = 65504;
  if (x.scalar_type() == at::kHalf) x.nan_to_num_(0.0, kLargestHalf, -kLargestHalf);
}

// What text or image goes through in a double block. `name`: "img" or "txt".
class Stream {
 public:
  Stream(const Scope& scope, const std::string& name, int64_t width)
      : modulation_(scope / (name + "_mod") / "lin", width, 6),
        norm1_(scope / (name + "_norm1")),
        qkv_(scope / (name + "_attn") / "qkv", width, 3 * width),
        qk_norm_(scope / (name + "_attn") / "norm"),
        proj_(scope / (name + "_attn") / "proj", width, width),
        norm2_(scope / (name + "_norm2")),
        mlp_(scope / (name + "_mlp") / 0, scope / (name + "_mlp") / 2, width, kMlpRatio * width,
             width, Mlp::Activation::kGeluTanh) {}

  std::vector<at::Tensor> Modulations(const at::Tensor& condition) const {
    return modulation_.Forward(condition);
  }
  Qkv Project(const at::Tensor& x, const std::vector<at::Tensor>& mod) const {
    return qk_norm_.Split(qkv_.Forward(Modulate(norm1_.Forward(x), mod[kShift], mod[kScale])));
  }
  // Adds to `x` what its tokens attended to, and the feed-forward.
  void Finish(at::Tensor& x, const std::vector<at::Tensor>& mod, const at::Tensor& attended) const {
    x.add_(proj_.Forward(attended).mul_(mod[kGate]));
    x.add_(mlp_.Forward(Modulate(norm2_.Forward(x), mod[kMlpShift], mod[kMlpScale]))
               .mul_(mod[kMlpGate]));
  }

 private:
  Modulation modulation_;
  PlainLayerNorm norm1_;
  Linear qkv_;
  QkNorm qk_norm_;
  Linear proj_;
  PlainLayerNorm norm2_;
  Mlp mlp_;
};

// Tokens are patches, channel by channel.
at::Tensor ToTokens(const at::Tensor& x) {
  const int64_t rows = PatchCount(x.size(2)), columns = PatchCount(x.size(3));
  return PadToPatches(x)
      .reshape({x.size(0), x.size(1), rows, kPatch, columns, kPatch})
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({x.size(0), rows * columns, -1});
}

at::Tensor ToMap(const at::Tensor& tokens, int64_t channels, int64_t height, int64_t width) {
  const int64_t rows = PatchCount(height), columns = PatchCount(width);
  return tokens.view({tokens.size(0), rows, columns, channels, kPatch, kPatch})
      .permute({0, 3, 1, 4, 2, 5})
      .reshape({tokens.size(0), channels, rows * kPatch, columns * kPatch})
      .narrow(2, 0, height)
      .narrow(3, 0, width);
}

Mlp Embedder(const Scope& scope, int64_t in, int64_t width) {
  return Mlp(scope / "in_layer", scope / "out_layer", in, width, width, Mlp::Activation::kSilu);
}

template <typename Block>
std::vector<std::unique_ptr<Unit<Block>>> MakeBlocks(const Scope& scope, int64_t count,
                                                     int64_t width) {
  std::vector<std::unique_ptr<Unit<Block>>> blocks;
  for (int64_t i = 0; i < count; ++i)
    blocks.push_back(std::make_unique<Unit<Block>>(scope / i, width));
  return blocks;
}

}  // namespace

class FluxDoubleBlock {
 public:
  FluxDoubleBlock(const Scope& scope, int64_t width)
      : image_(scope, "img", width), text_(scope, "txt", width) {}

  // Both in place. `condition` is the SiLU of the conditioning vector.
  void Forward(at::Tensor& image, at::Tensor& text, const at::Tensor& condition,
               const at::Tensor& cos, const at::Tensor& sin) const {
    const std::vector<at::Tensor> image_mod = image_.Modulations(condition);
    const std::vector<at::Tensor> text_mod = text_.Modulations(condition);
    Qkv joint = text_.Project(text, text_mod);
    const Qkv image_qkv = image_.Project(image, image_mod);
    for (size_t i = 0; i < joint.size(); ++i) joint[i] = at::cat({joint[i], image_qkv[i]}, 1);
    const at::Tensor attended = Attend(joint, {cos, sin});
    image_.Finish(image, image_mod, attended.slice(1, text.size(1)));
    text_.Finish(text, text_mod, attended.slice(1, 0, text.size(1)));
    ClampHalf(text);
  }

 private:
  Stream image_, text_;
};

class FluxSingleBlock {
 public:
  FluxSingleBlock(const Scope& scope, int64_t width)
      : width_(width),
        linear1_(scope / "linear1", width, (3 + kMlpRatio) * width),
        linear2_(scope / "linear2", (1 + kMlpRatio) * width, width),
        qk_norm_(scope / "norm"),
        pre_norm_(scope / "pre_norm"),
        modulation_(scope / "modulation" / "lin", width, 3) {}

  // In place.
  void Forward(at::Tensor& x, const at::Tensor& condition, const at::Tensor& cos,
               const at::Tensor& sin) const {
    const std::vector<at::Tensor> mod = modulation_.Forward(condition);
    const std::vector<at::Tensor> parts =
        linear1_.Forward(Modulate(pre_norm_.Forward(x), mod[kShift], mod[kScale]))
            .split_with_sizes({3 * width_, kMlpRatio * width_}, -1);
    const at::Tensor attended = Attend(qk_norm_.Split(parts[0]), {cos, sin});
    const at::Tensor hidden = at::cat({attended, at::gelu(parts[1], "tanh")}, 2);
    x.add_(linear2_.Forward(hidden).mul_(mod[kGate]));
    ClampHalf(x);
  }

 private:
  int64_t width_;
  Linear linear1_, linear2_;
  QkNorm qk_norm_;
  PlainLayerNorm pre_norm_;
  Modulation modulation_;
};

Flux::Flux(const Scope& scope, const FluxConfig& config)
    : config_(config),
      image_in_(scope / "img_in", kPatch * kPatch * config.in_channels, config.width),
      time_in_(Embedder(scope / "time_in", kTimeChannels, config.width)),
      vector_in_(Embedder(scope / "vector_in", config.pooled_width, config.width)),
      guidance_in_(config.guidance ? std::optional<Mlp>(Embedder(scope / "guidance_in",
                                                                 kTimeChannels, config.width))
                                   : std::nullopt),
      text_in_(scope / "txt_in", config.context_width, config.width),
      double_blocks_(
          MakeBlocks<FluxDoubleBlock>(scope / "double_blocks", config.double_blocks, config.width)),
      single_blocks_(
          MakeBlocks<FluxSingleBlock>(scope / "single_blocks", config.single_blocks, config.width)),
      final_layer_(scope / "final_layer", config.width, kPatch * kPatch * config.out_channels) {}

Flux::~Flux() = default;

at::Tensor Flux::Forward(const at::Tensor& x, const at::Tensor& timesteps,
                         const at::Tensor& context, const at::Tensor& pooled,
                         const at::Tensor& guidance) const {
  const auto embed = [&](const at::Tensor& t) {
    return TimestepEmbedding((t * kTimeScale).to(at::kFloat), kTimeChannels).to(x.scalar_type());
  };
  at::Tensor condition = time_in_.Forward(embed(timesteps));
  if (guidance_in_) condition.add_(guidance_in_->Forward(embed(guidance)));
  condition.add_(vector_in_.Forward(pooled));
  at::silu_(condition);  // every use of it begins with this

  at::Tensor image = image_in_.Forward(ToTokens(x));
  at::Tensor text = text_in_.Forward(context);
  const RotaryTable rotary = MakeRotaryTable(text.size(1), PatchCount(x.size(2)),
                                             PatchCount(x.size(3)), kAxes, x.device());

  Pass pass(x);
  Shared shared_condition(condition), cos(rotary.cos), sin(rotary.sin);
  for (const auto& block : double_blocks_)
    block->Forward(pass, image, text, shared_condition, cos, sin);
  ClampHalf(image);
  at::Tensor both = at::cat({text, image}, 1);
  for (const auto& block : single_blocks_) block->Forward(pass, both, shared_condition, cos, sin);
  const at::Tensor out = final_layer_.Forward(pass.Home(both.slice(1, text.size(1))), condition);
  return ToMap(out, config_.out_channels, x.size(2), x.size(3));
}

}  // namespace distorch::nn
