#include "lib/text/prompt_chunks.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/text/prompt.h"

namespace distorch::text {
namespace {

constexpr std::string_view kEmbedding = "embedding:";

// The parts of a run of text that are encoded by themselves: each "embedding:…" after a blank or a
// newline starts one.
std::vector<std::string_view> SplitBeforeEmbeddings(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t found = text.find(kEmbedding, 1); found != std::string_view::npos;
       found = text.find(kEmbedding, found + 1)) {
    if (text[found - 1] != ' ' && text[found - 1] != '\n') continue;
    parts.push_back(text.substr(begin, found - 1 - begin));
    begin = found;
  }
  parts.push_back(text.substr(begin));
  return parts;
}

// The parts between whitespace.
std::vector<std::string_view> SplitAtWhitespace(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t at = i;
    UChar32 c;
    U8_NEXT_OR_FFFD(reinterpret_cast<const uint8_t*>(text.data()), i, text.size(), c);
    if (!u_isUWhiteSpace(c)) continue;
    if (begin < at) parts.push_back(text.substr(begin, at - begin));
    begin = i;
  }
  if (begin < text.size()) parts.push_back(text.substr(begin));
  return parts;
}

std::string_view StripCommas(std::string_view name) {
  const size_t first = name.find_first_not_of(',');
  if (first == name.npos) return {};
  return name.substr(first, name.find_last_not_of(',') + 1 - first);
}

struct Embedding {
  std::optional<VectorRange> vectors;
  std::string text_after;
};

Embedding ReadEmbedding(std::string_view reference, VectorSource* source) {
  std::vector<std::string_view> words = SplitAtWhitespace(reference);
  const std::string_view name = words.empty() ? std::string_view() : words.front();
  if (!words.empty()) words.erase(words.begin());
  Embedding embedding{source->Find(name), absl::StrJoin(words, " ")};
  const std::string_view stripped = StripCommas(name);
  if (!embedding.vectors.has_value() && stripped.size() < name.size()) {
    embedding.vectors = source->Find(stripped);
    embedding.text_after = absl::StrCat(name.substr(stripped.size()), " ", embedding.text_after);
  }
  if (!embedding.vectors.has_value()) source->Missing(stripped);
  return embedding;
}

// Fills chunks with groups of tokens that came from one part of the prompt. A group that does not
// fit starts a new chunk; one of kLongGroup tokens and more is broken instead.
class ChunkPacker {
 public:
  explicit ChunkPacker(const ChunkFormat& format) : format_(format) { StartChunk(); }

  void Add(const std::vector<Token>& group) {
    constexpr size_t kLongGroup = 8;
    for (auto next = group.begin(); next != group.end();) {
      const size_t left = static_cast<size_t>(group.end() - next);
      size_t fitting = std::min(left, Room());
      if (group.size() < kLongGroup && fitting < left) fitting = 0;
      const auto end = next + static_cast<std::ptrdiff_t>(fitting);
      chunks_.back().insert(chunks_.back().end(), next, end);
      next = end;
      if (next != group.end()) {
        FinishChunk();
        StartChunk();
      }
    }
  }

  TokenChunks Finish() && {
    FinishChunk();
    return std::move(chunks_);
  }

 private:
  size_t Room() const { return format_.max_length - 1 - chunks_.back().size(); }

  void StartChunk() {
    chunks_.emplace_back();
    if (format_.start.has_value()) chunks_.back().push_back({*format_.start});
  }

  void FinishChunk() {
    std::vector<Token>& chunk = chunks_.back();
    chunk.push_back({format_.end});
    if (chunk.size() < format_.min_length) chunk.resize(format_.min_length, {format_.padding});
  }

  const ChunkFormat& format_;
  TokenChunks chunks_;
};

}  // namespace

TokenChunks ChunkPrompt(std::string_view prompt, const ChunkFormat& format,
                        absl::FunctionRef<std::vector<int>(std::string_view)> encode,
                        VectorSource* source) {
  ChunkPacker packer(format);
  std::vector<Token> group;
  const auto add_text = [&](std::string_view text, double weight) {
    group.clear();
    for (int id : encode(text)) group.push_back({id, weight});
    packer.Add(group);
  };
  const auto add_vectors = [&](const VectorRange& vectors, double weight) {
    group.clear();
    for (int i = 0; i < vectors.count; ++i) {
      group.push_back({format.padding, weight, vectors.first + i});
    }
    packer.Add(group);
  };
  for (const WeightedText& run : ParsePromptWeights(prompt)) {
    for (const std::string_view part : SplitBeforeEmbeddings(run.text)) {
      if (source == nullptr || !absl::StartsWith(part, kEmbedding)) {
        add_text(part, run.weight);
        continue;
      }
      const Embedding embedding = ReadEmbedding(part.substr(kEmbedding.size()), source);
      if (embedding.vectors.has_value()) add_vectors(*embedding.vectors, run.weight);
      add_text(embedding.text_after, run.weight);
    }
  }
  return std::move(packer).Finish();
}

}  // namespace distorch::text
