#include "lib/nn/mmdit.h"

#include <ATen/ATen.h>

#include <array>
#include <optional>
#include <utility>

#include "lib/nn/attention.h"
#include "lib/nn/unet.h"
#include "lib/nn/unit.h"

namespace distorch::nn {
namespace {

constexpr int64_t kHeadChannels = 64;
constexpr int64_t kTimeChannels = 256;
constexpr int64_t kMlpRatio = 4;
constexpr double kQkNormEps = 1e-6;

// The chunks of a stream's modulation.
enum Chunk { kShift, kScale, kGate, kMlpShift, kMlpScale, kMlpGate, kShift2, kScale2, kGate2 };

// Queries, keys and values, each [N, T, width].
using Qkv = std::array<at::Tensor, 3>;

// The projections of an attention, and the norms of its queries and keys.
class AttentionWeights {
 public:
  AttentionWeights(const Scope& scope, int64_t width, bool qk_norm, bool has_output)
      : qkv_(scope / "qkv", width, 3 * width) {
    if (has_output) proj_.emplace(scope / "proj", width, width);
    if (!qk_norm) return;
    q_norm_.emplace(scope / "ln_q", kHeadChannels, kQkNormEps);
    k_norm_.emplace(scope / "ln_k", kHeadChannels, kQkNormEps);
  }

  Qkv Project(const at::Tensor& x) const {
    const std::vector<at::Tensor> parts = qkv_.Forward(x).chunk(3, -1);
    return {Normalize(q_norm_, parts[0]), Normalize(k_norm_, parts[1]), parts[2]};
  }
  at::Tensor Output(const at::Tensor& attended) const { return proj_->Forward(attended); }

 private:
  static at::Tensor Normalize(const std::optional<RmsNorm>& norm, const at::Tensor& x) {
    if (!norm) return x;
    return norm->Forward(x.unflatten(-1, {-1, kHeadChannels})).flatten(-2);
  }

  Linear qkv_;
  std::optional<Linear> proj_;
  std::optional<RmsNorm> q_norm_, k_norm_;
};

struct StreamOptions {
  bool qk_norm = false;
  bool dual = false;  // attends to itself, too
  bool ends = false;  // nothing after it needs its tokens: it only serves keys and values
};

// What one modality goes through in a block.
class Stream {
 public:
  Stream(const Scope& scope, int64_t width, const StreamOptions& options)
      : heads_(width / kHeadChannels),
        norm1_(scope / "norm1"),
        attention_(scope / "attn", width, options.qk_norm, !options.ends) {
    if (options.dual) own_attention_.emplace(scope / "attn2", width, options.qk_norm, true);
    if (!options.ends) {
      norm2_.emplace(scope / "norm2");
      mlp_.emplace(scope / "mlp" / "fc1", scope / "mlp" / "fc2", width, kMlpRatio * width, width,
                   Mlp::Activation::kGeluTanh);
    }
    modulation_.emplace(scope / "adaLN_modulation" / 1, width,
                        options.ends   ? 2
                        : options.dual ? 9
                                       : 6);
  }

  struct Prepared {
    std::vector<at::Tensor> mod;  // by Chunk
    Qkv joint;
    Qkv own;  // with dual attention
  };
  Prepared Prepare(const at::Tensor& x, const at::Tensor& condition) const {
    Prepared result;
    result.mod = modulation_->Forward(condition);
    const at::Tensor normed = norm1_.Forward(x);
    result.joint = attention_.Project(Modulate(normed, result.mod[kShift], result.mod[kScale]));
    if (own_attention_) {
      result.own =
          own_attention_->Project(Modulate(normed, result.mod[kShift2], result.mod[kScale2]));
    }
    return result;
  }

  // Adds to `x` what its tokens attended to, and the feed-forward.
  void Finish(at::Tensor& x, const Prepared& prepared, const at::Tensor& attended) const {
    const std::vector<at::Tensor>& mod = prepared.mod;
    x.add_(attention_.Output(attended).mul_(mod[kGate]));
    if (own_attention_) {
      const auto& [q, k, v] = prepared.own;
      x.add_(own_attention_->Output(Attention(q, k, v, heads_)).mul_(mod[kGate2]));
    }
    x.add_(mlp_->Forward(Modulate(norm2_->Forward(x), mod[kMlpShift], mod[kMlpScale]))
               .mul_(mod[kMlpGate]));
  }

 private:
  int64_t heads_;
  PlainLayerNorm norm1_;
  AttentionWeights attention_;
  std::optional<AttentionWeights> own_attention_;
  std::optional<PlainLayerNorm> norm2_;
  std::optional<Mlp> mlp_;
  std::optional<Modulation> modulation_;
};

}  // namespace

class JointBlock {
 public:
  JointBlock(const Scope& scope, const MmDitConfig& config, size_t index)
      : heads_(config.width / kHeadChannels),
        last_(index + 1 == config.dual_attention.size()),
        context_(scope / "context_block", config.width, {.qk_norm = config.qk_norm, .ends = last_}),
        image_(scope / "x_block", config.width,
               {.qk_norm = config.qk_norm, .dual = config.dual_attention[index]}) {}

  // Both in place. `condition` is the SiLU of the conditioning vector.
  void Forward(at::Tensor& context, at::Tensor& x, const at::Tensor& condition) const {
    const Stream::Prepared text = context_.Prepare(context, condition);
    const Stream::Prepared image = image_.Prepare(x, condition);
    Qkv joint;
    for (size_t i = 0; i < joint.size(); ++i)
      joint[i] = at::cat({text.joint[i], image.joint[i]}, 1);
    const at::Tensor attended = Attention(joint[0], joint[1], joint[2], heads_);
    const int64_t tokens = context.size(1);
    if (!last_) context_.Finish(context, text, attended.slice(1, 0, tokens));
    image_.Finish(x, image, attended.slice(1, tokens));
  }

 private:
  int64_t heads_;
  bool last_;
  Stream context_, image_;
};

MmDit::MmDit(const Scope& scope, const MmDitConfig& config)
    : config_(config),
      positions_(
          scope.store().AddBuffer((scope / "pos_embed").name(),
                                  {1, config.position_side * config.position_side, config.width})),
      x_embedder_(scope / "x_embedder" / "proj", config.in_channels, config.width,
                  {.kernel = kPatch, .stride = kPatch, .padding = 0}),
      time_embedder_(scope / "t_embedder" / "mlp" / 0, scope / "t_embedder" / "mlp" / 2,
                     kTimeChannels, config.width, config.width, Mlp::Activation::kSilu),
      pooled_embedder_(scope / "y_embedder" / "mlp" / 0, scope / "y_embedder" / "mlp" / 2,
                       config.pooled_width, config.width, config.width, Mlp::Activation::kSilu),
      context_embedder_(scope / "context_embedder", config.context_width, config.width),
      blocks_([&] {
        std::vector<std::unique_ptr<Unit<JointBlock>>> blocks;
        for (size_t i = 0; i < config.dual_attention.size(); ++i) {
          blocks.push_back(std::make_unique<Unit<JointBlock>>(
              scope / "joint_blocks" / static_cast<int64_t>(i), config, i));
        }
        return blocks;
      }()),
      final_layer_(scope / "final_layer", config.width, kPatch * kPatch * config.out_channels) {}

MmDit::~MmDit() = default;

at::Tensor MmDit::Positions(const at::Tensor& like, int64_t rows, int64_t columns) const {
  const int64_t side = config_.position_side;
  const WeightLease table = positions_->Acquire(like);
  return table.weight()
      .view({1, side, side, config_.width})
      .narrow(1, (side - rows) / 2, rows)
      .narrow(2, (side - columns) / 2, columns)
      .flatten(1, 2);
}

at::Tensor MmDit::Forward(const at::Tensor& x, const at::Tensor& timesteps,
                          const at::Tensor& context, const at::Tensor& pooled) const {
  const int64_t rows = PatchCount(x.size(2)), columns = PatchCount(x.size(3));
  at::Tensor image = x_embedder_.Forward(PadToPatches(x)).flatten(2).transpose(1, 2).contiguous();
  image.add_(Positions(image, rows, columns));

  at::Tensor condition =
      time_embedder_.Forward(TimestepEmbedding(timesteps, kTimeChannels).to(x.scalar_type()));
  condition.add_(pooled_embedder_.Forward(pooled));
  at::silu_(condition);  // every use of it begins with this

  at::Tensor text = context_embedder_.Forward(context);
  Pass pass(x);
  Shared shared_condition(condition);
  for (const auto& block : blocks_) block->Forward(pass, text, image, shared_condition);
  image = pass.Home(std::move(image));

  // Tokens hold their patch pixel by pixel, channels last.
  return final_layer_.Forward(image, condition)
      .view({x.size(0), rows, columns, kPatch, kPatch, config_.out_channels})
      .permute({0, 5, 1, 3, 2, 4})
      .reshape({x.size(0), config_.out_channels, rows * kPatch, columns * kPatch})
      .narrow(2, 0, x.size(2))
      .narrow(3, 0, x.size(3));
}

}  // namespace distorch::nn
