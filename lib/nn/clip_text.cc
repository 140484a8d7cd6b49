#include "lib/nn/clip_text.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "lib/nn/attention.h"

namespace distorch::nn {

class ClipTextLayer {
 public:
  ClipTextLayer(const Scope& scope, const ClipTextConfig& config)
      : config_(config),
        norm1_(scope / "layer_norm1", config.width),
        q_(scope / "self_attn" / "q_proj", config.width, config.width),
        k_(scope / "self_attn" / "k_proj", config.width, config.width),
        v_(scope / "self_attn" / "v_proj", config.width, config.width),
        out_(scope / "self_attn" / "out_proj", config.width, config.width),
        norm2_(scope / "layer_norm2", config.width),
        fc1_(scope / "mlp" / "fc1", config.width, config.feed_forward),
        fc2_(scope / "mlp" / "fc2", config.feed_forward, config.width) {}

  at::Tensor Forward(const at::Tensor& x, const at::Tensor& mask) const {
    at::Tensor h = norm1_.Forward(x);
    h = out_.Forward(Attention(q_.Forward(h), k_.Forward(h), v_.Forward(h), config_.heads, mask))
            .add_(x);
    const at::Tensor inner = fc1_.Forward(norm2_.Forward(h));
    return fc2_.Forward(Activate(inner)).add_(h);
  }

 private:
  at::Tensor Activate(const at::Tensor& x) const {
    if (config_.activation == ClipTextConfig::Activation::kGelu) return at::gelu(x);
    return x * at::sigmoid(x * 1.702);
  }

  ClipTextConfig config_;
  LayerNorm norm1_;
  Linear q_, k_, v_, out_;
  LayerNorm norm2_;
  Linear fc1_, fc2_;
};

namespace {

std::vector<ClipTextLayer> BuildLayers(const Scope& scope, const ClipTextConfig& config) {
  std::vector<ClipTextLayer> layers;
  for (int64_t i = 0; i < config.layers; ++i) layers.emplace_back(scope / i, config);
  return layers;
}

// [T, T]: −inf above the diagonal.
at::Tensor CausalMask(int64_t length, const at::TensorOptions& options) {
  return at::full({length, length}, -std::numeric_limits<float>::infinity(), options).triu_(1);
}

// [N, T, width] -> [N, width].
at::Tensor StatesAt(const at::Tensor& states, std::span<const int64_t> columns) {
  std::vector<at::Tensor> rows;
  for (size_t i = 0; i < columns.size(); ++i) {
    rows.push_back(states[static_cast<int64_t>(i)][columns[i]]);
  }
  return at::stack(rows);
}

}  // namespace

ClipTextModel::ClipTextModel(const Scope& scope, const ClipTextConfig& config)
    : config_(config),
      tokens_(scope / "text_model" / "embeddings" / "token_embedding", config.vocabulary,
              config.width),
      positions_(scope / "text_model" / "embeddings" / "position_embedding", config.positions,
                 config.width),
      layers_(BuildLayers(scope / "text_model" / "encoder" / "layers", config)),
      final_norm_(scope / "text_model" / "final_layer_norm", config.width),
      // SD1 files lack the projection; the reference then keeps an identity there.
      projection_(scope / "text_projection", config.width, config.projection, false,
                  IfMissing::kIdentity) {}

ClipTextModel::~ClipTextModel() = default;

at::Tensor ClipTextModel::Embed(const at::Tensor& ids, const at::Device& device,
                                at::ScalarType dtype) const {
  return tokens_.Forward(ids.to(device), dtype);
}

ClipTextModel::Output ClipTextModel::Forward(const at::Tensor& embeds,
                                             std::span<const int64_t> ends, int layer,
                                             bool norm_hidden) const {
  const int64_t length = embeds.size(1);
  const at::Device device = embeds.device();
  const at::ScalarType dtype = embeds.scalar_type();
  at::Tensor x = embeds + positions_.Forward(at::arange(length, at::kLong).to(device), dtype);
  const at::Tensor mask = CausalMask(length, at::TensorOptions().dtype(dtype)).to(device);

  const int64_t count = static_cast<int64_t>(layers_.size());
  const int64_t all = count + config_.absent_layers;
  const int64_t stop = layer < 0 && -layer <= all ? std::min(all + layer, count) : count;
  at::Tensor hidden;
  for (int64_t i = 0; i < count; ++i) {
    x = layers_[static_cast<size_t>(i)].Forward(x, mask);
    if (i == stop) hidden = x;
  }
  const at::Tensor last = final_norm_.Forward(x);
  if (stop == count) {
    hidden = last;
  } else if (norm_hidden) {
    hidden = final_norm_.Forward(hidden);
  }
  return {hidden, StatesAt(last, ends)};
}

}  // namespace distorch::nn
