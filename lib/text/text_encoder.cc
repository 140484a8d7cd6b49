#include "lib/text/text_encoder.h"

#include <ATen/ATen.h>

#include <vector>

#include "lib/base/torch_status.h"
#include "lib/text/clip_tokenizer.h"

namespace distorch::text {
namespace {

at::Tensor TokenIds(const TokenChunks& chunks) {
  const auto rows = static_cast<int64_t>(chunks.size());
  const auto columns = static_cast<int64_t>(chunks.front().size());
  at::Tensor ids = at::empty({rows, columns}, at::kLong);
  auto out = ids.accessor<int64_t, 2>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c)
      out[r][c] = chunks[static_cast<size_t>(r)][static_cast<size_t>(c)].id;
  }
  return ids;
}

bool HasWeights(const TokenChunks& chunks) {
  for (const auto& chunk : chunks) {
    for (const Token& token : chunk) {
      if (token.weight != 1.0) return true;
    }
  }
  return false;
}

// hidden: [chunks, T, width] on the CPU, changed in place; empty: [T, width].
void ApplyWeights(const TokenChunks& chunks, const at::Tensor& empty, at::Tensor hidden) {
  for (size_t r = 0; r < chunks.size(); ++r) {
    for (size_t c = 0; c < chunks[r].size(); ++c) {
      const double weight = chunks[r][c].weight;
      if (weight == 1.0) continue;
      at::Tensor state = hidden[static_cast<int64_t>(r)][static_cast<int64_t>(c)];
      const at::Tensor origin = empty[static_cast<int64_t>(c)];
      state.sub_(origin).mul_(weight).add_(origin);
    }
  }
}

}  // namespace

Conditioning EncodeWeighted(const nn::ClipTextModel& model, const TokenChunks& chunks,
                            const TokenChunks& empty, const nn::ComputeTarget& compute,
                            int stop_at_layer) {
  const bool weighted = HasWeights(chunks);
  TokenChunks batch = chunks;
  if (weighted) batch.insert(batch.end(), empty.begin(), empty.end());

  const auto out = model.Forward(TokenIds(batch), compute.device, compute.dtype, stop_at_layer);
  const at::Tensor states = out.hidden.to(at::kCPU, at::kFloat);
  const auto count = static_cast<int64_t>(chunks.size());
  at::Tensor hidden = states.slice(0, 0, count).clone();
  if (weighted) ApplyWeights(chunks, states[count], hidden);

  Conditioning result;
  result.cross_attention = hidden.reshape({1, -1, hidden.size(2)});
  result.pooled = out.pooled.slice(0, 0, 1).to(at::kCPU, at::kFloat);
  return result;
}

ClipLTextEncoder::ClipLTextEncoder(const NamedTensors* tensors, const nn::ClipTextConfig& config)
    : TextEncoder(tensors), model_(nn::Scope(&store(), "clip_l.transformer"), config) {}

absl::StatusOr<Conditioning> ClipLTextEncoder::Encode(std::string_view prompt,
                                                      int stop_at_layer) const {
  return RunTorchOr<Conditioning>([&]() -> absl::StatusOr<Conditioning> {
    const ClipTokenizer& tokenizer = ClipTokenizer::Get();
    return EncodeWeighted(model_, tokenizer.Tokenize(prompt), tokenizer.Tokenize(""), compute(),
                          stop_at_layer);
  });
}

}  // namespace distorch::text
