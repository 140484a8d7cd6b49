#include "lib/text/transformer_encoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/text/clip_tokenizer.h"
#include "lib/text/t5_tokenizer.h"

namespace distorch::text {
namespace {

// Far beyond any use; a longer prompt's attention would take memory without bound.
constexpr int64_t kMaxChunks = 64, kMaxChunkTokens = 2048;
constexpr int64_t kMaxTokens = kMaxChunks * ClipTokenizer::kChunkLength;

// The vectors of a prompt's embeddings, read once each.
class VectorTable : public VectorSource {
 public:
  VectorTable(EmbeddingSource* source, std::string_view transformer, int64_t width)
      : source_(source), transformer_(transformer), width_(width) {}

  std::optional<VectorRange> Find(std::string_view name) override {
    auto [entry, is_new] = ranges_.try_emplace(name);
    if (is_new) entry->second = Load(name);
    if (!entry->second.ok()) return std::nullopt;
    used_ += entry->second->count;
    // A short prompt can name a long embedding often.
    if (used_ > kMaxTokens) return std::nullopt;
    return *entry->second;
  }

  void Missing(std::string_view name) override {
    const auto entry = ranges_.find(name);
    if (entry != ranges_.end() && !entry->second.ok()) {
      source_->Ignored(name, entry->second.status());
    }
  }

  bool too_many() const { return used_ > kMaxTokens; }
  // Undefined for one that is not as wide as the transformer.
  const at::Tensor& vector(int index) const { return vectors_[static_cast<size_t>(index)]; }

 private:
  absl::StatusOr<VectorRange> Load(std::string_view name) {
    ASSIGN_OR_RETURN(const at::Tensor vectors, source_->Load(name, transformer_));
    const bool fits = vectors.size(1) == width_;
    if (!fits) {
      source_->Ignored(name, absl::InvalidArgumentError(
                                 absl::StrCat("its vectors have ", vectors.size(1), " numbers, ",
                                              transformer_, " takes ", width_)));
    }
    const VectorRange range{static_cast<int>(vectors_.size()), static_cast<int>(vectors.size(0))};
    for (int64_t i = 0; i < vectors.size(0); ++i) {
      vectors_.push_back(fits ? vectors[i] : at::Tensor());
    }
    return range;
  }

  EmbeddingSource* const source_;
  const std::string_view transformer_;
  const int64_t width_;
  absl::flat_hash_map<std::string, absl::StatusOr<VectorRange>> ranges_;
  std::vector<at::Tensor> vectors_;
  int64_t used_ = 0;
};

absl::Status CheckLength(const TokenChunks& chunks, const VectorTable& table) {
  const auto count = static_cast<int64_t>(chunks.size());
  const auto longest = static_cast<int64_t>(chunks.front().size());
  if (count <= kMaxChunks && longest <= kMaxChunkTokens && !table.too_many()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the prompt is too long: ", count, " chunks, the first of ", longest,
                   " tokens; allowed: up to ", kMaxChunks, " chunks, ", kMaxChunkTokens,
                   " tokens each, ", kMaxTokens, " of them from embeddings"));
}

bool HasWeights(const TokenChunks& chunks) {
  return std::any_of(chunks.begin(), chunks.end(), [](const std::vector<Token>& chunk) {
    return std::any_of(chunk.begin(), chunk.end(), [](const Token& t) { return t.weight != 1.0; });
  });
}

// Chunks of equal length as a transformer's input.
struct Rows {
  at::Tensor ids;  // [N, T]
  std::vector<int64_t> ends;
  struct Replacement {
    int64_t row, column;
    at::Tensor vector;
  };
  std::vector<Replacement> replacements;
};

Rows ToRows(const TokenChunks& chunks, const VectorTable& table, int end, int padding) {
  const auto count = static_cast<int64_t>(chunks.size());
  const auto length = static_cast<int64_t>(chunks.front().size());
  Rows rows;
  rows.ids = at::full({count, length}, padding, at::kLong);
  auto ids = rows.ids.accessor<int64_t, 2>();
  for (int64_t row = 0; row < count; ++row) {
    int64_t column = 0, end_column = -1;
    for (const Token& token : chunks[static_cast<size_t>(row)]) {
      if (token.vector < 0) {
        if (token.id == end && end_column < 0) end_column = column;
        ids[row][column++] = token.id;
      } else if (const at::Tensor& vector = table.vector(token.vector); vector.defined()) {
        rows.replacements.push_back({row, column++, vector});
      }
    }
    rows.ends.push_back(end_column);
  }
  return rows;
}

// hidden: [chunks, T, width] on the CPU, changed in place; empty: [T, width].
void ApplyWeights(const TokenChunks& chunks, const at::Tensor& empty, const at::Tensor& hidden) {
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

absl::StatusOr<EncodedText> TransformerEncoder::Encode(std::string_view prompt, int stop_at_layer,
                                                       EmbeddingSource* embeddings,
                                                       const nn::ComputeTarget& compute) const {
  const Traits traits = this->traits();
  VectorTable table(embeddings, traits.name, traits.width);
  const TokenChunks chunks = Tokenize(prompt, embeddings == nullptr ? nullptr : &table);
  RETURN_IF_ERROR(CheckLength(chunks, table));
  const bool weighted = HasWeights(chunks);
  TokenChunks batch = chunks;
  if (weighted) {
    std::vector<Token> empty = Tokenize("", nullptr).front();
    empty.resize(chunks.front().size(), {traits.padding});
    batch.push_back(std::move(empty));
  }

  const Rows rows = ToRows(batch, table, traits.end, traits.padding);
  const at::Tensor embeds = Embed(rows.ids, compute);
  for (const auto& [row, column, vector] : rows.replacements) embeds[row][column].copy_(vector);
  const EncodedText states = Run(embeds, rows.ends, stop_at_layer, compute);

  const auto count = static_cast<int64_t>(chunks.size());
  const at::Tensor all = states.hidden.to(at::kCPU, at::kFloat);
  const at::Tensor hidden = all.slice(0, 0, count).clone();
  if (weighted) ApplyWeights(chunks, all[count], hidden);
  EncodedText result;
  result.hidden = hidden.reshape({1, -1, hidden.size(2)});
  if (states.pooled.defined()) {
    result.pooled = states.pooled.slice(0, 0, 1).to(at::kCPU, at::kFloat);
  }
  return result;
}

TransformerEncoder::Traits ClipEncoder::traits() const {
  return {use_.name, model_.config().width, ClipTokenizer::kEnd, use_.padding};
}

TokenChunks ClipEncoder::Tokenize(std::string_view prompt, VectorSource* source) const {
  return ClipTokenizer::Get().Tokenize(prompt, use_.padding, source);
}

at::Tensor ClipEncoder::Embed(const at::Tensor& ids, const nn::ComputeTarget& compute) const {
  return model_.Embed(ids, compute.device, compute.dtype);
}

EncodedText ClipEncoder::Run(const at::Tensor& embeds, std::span<const int64_t> ends,
                             int stop_at_layer, const nn::ComputeTarget&) const {
  const int layer = stop_at_layer == 0 ? use_.layer : stop_at_layer;
  const auto out = model_.Forward(embeds, ends, layer, use_.norm_hidden);
  return {out.hidden, use_.project_pooled ? model_.Project(out.pooled) : out.pooled};
}

TransformerEncoder::Traits T5Encoder::traits() const {
  return {"t5xxl", model_.config().width, T5Tokenizer::kEnd, T5Tokenizer::kPadding};
}

TokenChunks T5Encoder::Tokenize(std::string_view prompt, VectorSource* source) const {
  return T5Tokenizer::Get().Tokenize(prompt, min_length_, source);
}

at::Tensor T5Encoder::Embed(const at::Tensor& ids, const nn::ComputeTarget& compute) const {
  return model_.Embed(ids, compute.device);
}

EncodedText T5Encoder::Run(const at::Tensor& embeds, std::span<const int64_t>, int stop_at_layer,
                           const nn::ComputeTarget& compute) const {
  return {model_.Forward(embeds, compute.dtype, stop_at_layer), {}};
}

}  // namespace distorch::text
