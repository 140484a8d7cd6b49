// Any bytes are a prompt. Chunks are whole and well-formed, and parsing loses no plain text.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "lib/text/clip_tokenizer.h"
#include "lib/text/prompt.h"

namespace {

using distorch::text::ClipTokenizer;
using distorch::text::Token;

void Require(bool property) {
  if (!property) std::abort();
}

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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view prompt(reinterpret_cast<const char*>(data), size);
  CheckRuns(prompt);
  CheckChunks(prompt, ClipTokenizer::kEnd);
  CheckChunks(prompt, 0);
  return 0;
}
