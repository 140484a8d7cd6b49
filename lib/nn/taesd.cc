#include "lib/nn/taesd.h"

#include <ATen/ATen.h>

namespace distorch::nn {
namespace {

constexpr int64_t kWidth = 64;
constexpr int kUpscales = 3, kBlocksAStage = 3;

// Positions in the published sequence of layers; activations and upscaling take one each.
constexpr int64_t kConvIn = 1, kFirstBlock = 3;

}  // namespace

Taesd::Block::Block(const Scope& scope)
    : first_(scope / "conv" / 0, kWidth, kWidth, {}),
      second_(scope / "conv" / 2, kWidth, kWidth, {}),
      third_(scope / "conv" / 4, kWidth, kWidth, {}) {}

at::Tensor Taesd::Block::Forward(const at::Tensor& x) const {
  at::Tensor h = first_.Forward(x);
  h = second_.Forward(at::relu_(h));
  h = third_.Forward(at::relu_(h));
  return h.add_(x).relu_();
}

std::vector<Taesd::Stage> Taesd::BuildStages(const Scope& scope) {
  std::vector<Stage> stages(kUpscales + 1);
  int64_t at = kFirstBlock;
  for (int i = 0; i < kUpscales; ++i) {
    for (int b = 0; b < kBlocksAStage; ++b) stages[i].blocks.emplace_back(scope / at++);
    ++at;  // the upscaling
    stages[i].upscale.emplace(scope / at++, kWidth, kWidth, /*bias=*/false);
  }
  stages[kUpscales].blocks.emplace_back(scope / at);
  return stages;
}

Taesd::Taesd(const NamedTensors* tensors, int64_t latent_channels)
    : Component(tensors),
      conv_in_(Scope(&store(), "") / kConvIn, latent_channels, kWidth, {}),
      stages_(BuildStages(Scope(&store(), ""))),
      conv_out_(Scope(&store(), "") / (kFirstBlock + kUpscales * (kBlocksAStage + 2) + 1), kWidth,
                3, {}) {}

at::Tensor Taesd::Decode(const at::Tensor& latents) const {
  constexpr double kClamp = 3;  // softly
  at::Tensor h = conv_in_.Forward(at::tanh(latents / kClamp).mul_(kClamp));
  at::relu_(h);
  for (const Stage& stage : stages_) {
    for (const Block& block : stage.blocks) h = block.Forward(h);
    if (stage.upscale) h = stage.upscale->Forward(h);
  }
  return conv_out_.Forward(h);
}

}  // namespace distorch::nn
