// Any bytes are a prompt. Chunks are whole and well-formed, and parsing loses no plain text.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

#include "lib/text/clip_tokenizer.h"
#include "lib/text/prompt.h"
#include "lib/text/t5_tokenizer.h"
#include "tests/fuzz/require.h"

namespace {

using distorch::Require;

using distorch::text::ClipTokenizer;
using distorch::text::T5Tokenizer;
using distorch::text::Token;

void CheckRuns(std::string_view prompt) {
  size_t bytes = 0;
  for (const auto& run : distorch::text::ParsePromptWeights(prompt)) {
    Require(!run.text.empty());
    bytes += run.text.size();
  }
  Require(bytes <= prompt.size());
  if (prompt.find_first_of("()") == prompt.npos) Require(bytes == prompt.size());
}

void CheckChunks(std::string_view prompt, int pad_token) {
  const auto chunks = ClipTokenizer::Get().Tokenize(prompt, pad_token);
  Require(!chunks.empty());
  for (const auto& chunk : chunks) {
    Require(chunk.size() == ClipTokenizer::kChunkLength);
    Require(chunk.front() == Token{ClipTokenizer::kStart, 1.0});
    for (const Token& token : chunk) Require(token.id >= 0 && token.id <= ClipTokenizer::kEnd);
    // After the last end token there is nothing but padding.
    const auto end = std::find_if(chunk.rbegin(), chunk.rend(), [&](const Token& t) {
      return t != Token{pad_token, 1.0};
    });
    Require(pad_token == ClipTokenizer::kEnd || *end == Token{ClipTokenizer::kEnd, 1.0});
  }
}

void CheckT5(std::string_view prompt) {
  constexpr int kTokens = 32100;
  const auto chunks = T5Tokenizer::Get().Tokenize(prompt, T5Tokenizer::kSd3Length);
  Require(chunks.size() == 1 && chunks.front().size() >= T5Tokenizer::kSd3Length);
  for (const Token& token : chunks.front()) Require(token.id >= 0 && token.id < kTokens);
  // A piece covers at least a byte, and what is replaced grows no more than Arabic ligatures do.
  constexpr size_t kMaxGrowth = 18;
  Require(chunks.front().size() <= T5Tokenizer::kSd3Length + kMaxGrowth * (prompt.size() + 1));
}

// Every name is an embedding of as many vectors as it has bytes.
class AllNames : public distorch::text::VectorSource {
 public:
  std::optional<distorch::text::VectorRange> Find(std::string_view name) override {
    if (name.empty()) return std::nullopt;
    return distorch::text::VectorRange{0, static_cast<int>(name.size())};
  }
  void Missing(std::string_view name) override { Require(name.empty()); }
};

void CheckEmbeddings(std::string_view prompt) {
  AllNames names;
  for (const auto& chunk : ClipTokenizer::Get().Tokenize(prompt, 0, &names)) {
    Require(chunk.size() == ClipTokenizer::kChunkLength);
    for (const Token& token : chunk) {
      Require(token.vector < static_cast<int>(prompt.size()));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view prompt(reinterpret_cast<const char*>(data), size);
  CheckRuns(prompt);
  CheckChunks(prompt, ClipTokenizer::kEnd);
  CheckChunks(prompt, 0);
  CheckT5(prompt);
  CheckEmbeddings(prompt);
  return 0;
}
