#include "lib/text/clip_tokenizer.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/text/byte_pair_encoding.h"
#include "lib/text/prompt_chunks.h"
#include "lib/text/text_cleaning.h"
#include "lib/text/vocab/embedded.h"

namespace distorch::text {
namespace {

constexpr std::string_view kStartText = "<|startoftext|>";
constexpr std::string_view kEndText = "<|endoftext|>";
constexpr int kMergeCount = ClipTokenizer::kStart - 512;

enum class CharClass { kSpace, kLetter, kNumber, kOther };

CharClass Classify(UChar32 c) {
  if (u_isUWhiteSpace(c)) return CharClass::kSpace;
  const uint32_t category = U_MASK(u_charType(c));
  if (category & U_GC_L_MASK) return CharClass::kLetter;
  if (category & U_GC_N_MASK) return CharClass::kNumber;
  return CharClass::kOther;
}

// The bytes that the character at the start of `text` takes, and its class.
std::pair<size_t, CharClass> NextChar(std::string_view text) {
  size_t length = 0;
  UChar32 c;
  U8_NEXT_OR_FFFD(reinterpret_cast<const uint8_t*>(text.data()), length, text.size(), c);
  return {length, Classify(c)};
}

// The bytes of the contraction ('s 't 're 've 'm 'll 'd) that `text` starts with; 0 when with none.
size_t ContractionLength(std::string_view text) {
  for (std::string_view contraction : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (absl::StartsWith(text, contraction)) return contraction.size();
  }
  // The reference's pattern ignores case, and the long s is an s to it.
  constexpr std::string_view kLongS = "'\u017F";
  return absl::StartsWith(text, kLongS) ? kLongS.size() : 0;
}

// The bytes of the word that cleaned text without leading space starts with: a contraction,
// letters, one digit, or what is none of them.
size_t WordLength(std::string_view text) {
  if (const size_t contraction = ContractionLength(text); contraction > 0) return contraction;
  const auto [first, kind] = NextChar(text);
  size_t length = first;
  while (kind != CharClass::kNumber && length < text.size()) {
    const auto [bytes, next_kind] = NextChar(text.substr(length));
    if (next_kind != kind) break;
    length += bytes;
  }
  return length;
}

// A special token at the start of `text`: its id and spelling; an empty spelling when there is
// none.
std::pair<int, std::string_view> SpecialToken(std::string_view text) {
  if (absl::StartsWith(text, kStartText)) return {ClipTokenizer::kStart, kStartText};
  if (absl::StartsWith(text, kEndText)) return {ClipTokenizer::kEnd, kEndText};
  return {0, {}};
}

// Where the next special token in `text` starts, or its size.
size_t FindSpecialToken(std::string_view text) {
  for (size_t at = text.find("<|"); at != std::string_view::npos; at = text.find("<|", at + 1)) {
    if (!SpecialToken(text.substr(at)).second.empty()) return at;
  }
  return text.size();
}

}  // namespace

struct ClipTokenizer::Impl {
  // The merges are part of the program; value() ends it when the build put something else there.
  BytePairEncoding encoding =
      BytePairEncoding::FromGzip(EmbeddedClipMergesGz(), kMergeCount).value();

  void EncodeCleaned(std::string_view text, std::vector<int>* ids) const {
    while (!text.empty()) {
      if (text.front() == ' ') {
        text.remove_prefix(1);
      } else if (const auto [id, spelling] = SpecialToken(text); !spelling.empty()) {
        ids->push_back(id);
        text.remove_prefix(spelling.size());
      } else {
        const size_t length = WordLength(text);
        encoding.EncodeWord(text.substr(0, length), ids);
        text.remove_prefix(length);
      }
    }
  }
};

const ClipTokenizer& ClipTokenizer::Get() {
  static const auto& tokenizer = *new ClipTokenizer;
  return tokenizer;
}

ClipTokenizer::ClipTokenizer() : impl_(std::make_unique<Impl>()) {}
ClipTokenizer::~ClipTokenizer() = default;

std::vector<int> ClipTokenizer::Encode(std::string_view text) const {
  std::vector<int> ids;
  while (!text.empty()) {
    // Special tokens as such stand outside the text: cleaning stops at them.
    const size_t special = FindSpecialToken(text);
    impl_->EncodeCleaned(CleanText(text.substr(0, special)), &ids);
    text.remove_prefix(special);
    const auto [id, spelling] = SpecialToken(text);
    if (!spelling.empty()) ids.push_back(id);
    text.remove_prefix(spelling.size());
  }
  return ids;
}

TokenChunks ClipTokenizer::Tokenize(std::string_view prompt, int pad_token,
                                    VectorSource* source) const {
  const ChunkFormat format{.start = kStart,
                           .end = kEnd,
                           .padding = pad_token,
                           .min_length = kChunkLength,
                           .max_length = kChunkLength};
  return ChunkPrompt(
      prompt, format, [this](std::string_view text) { return Encode(text); }, source);
}

}  // namespace distorch::text
