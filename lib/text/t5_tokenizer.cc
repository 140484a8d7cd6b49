#include "lib/text/t5_tokenizer.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "lib/base/status_macros.h"
#include "lib/text/character_map.h"
#include "lib/text/gunzip.h"
#include "lib/text/prompt_chunks.h"
#include "lib/text/unigram.h"
#include "lib/text/vocab/embedded.h"
#include "nlohmann/json.hpp"

namespace distorch::text {
namespace {

// SentencePiece's sign for a space, U+2581, which starts each word's first piece.
constexpr std::string_view kSpace = "\u2581";

struct Model {
  Unigram pieces;
  CharacterMap characters;
};

absl::StatusOr<Model> ReadModel(std::string_view gz) {
  ASSIGN_OR_RETURN(const std::string text, GunzipLines(gz, std::numeric_limits<int64_t>::max()));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("not JSON");
  std::vector<Unigram::Piece> pieces;
  for (const auto& entry : json["model"]["vocab"]) pieces.push_back({entry[0], entry[1]});
  ASSIGN_OR_RETURN(Unigram unigram, Unigram::Create(pieces, T5Tokenizer::kUnknown));
  std::string blob;
  for (const auto& step : json["normalizer"]["normalizers"]) {
    if (step["type"] != "Precompiled") continue;
    absl::Base64Unescape(step["precompiled_charsmap"].get_ref<const std::string&>(), &blob);
  }
  ASSIGN_OR_RETURN(CharacterMap characters, CharacterMap::Parse(blob));
  return Model{std::move(unigram), std::move(characters)};
}

// A special token at the start of `text`: its id and its bytes; 0 bytes when there is none.
std::pair<int, size_t> SpecialToken(std::string_view text) {
  constexpr std::pair<int, std::string_view> kSpecial[] = {{T5Tokenizer::kPadding, "<pad>"},
                                                           {T5Tokenizer::kEnd, "</s>"},
                                                           {T5Tokenizer::kUnknown, "<unk>"}};
  for (const auto& [id, spelling] : kSpecial) {
    if (absl::StartsWith(text, spelling)) return {id, spelling.size()};
  }
  // <extra_id_0> to <extra_id_99>, the last tokens, counted from the end.
  constexpr std::string_view kExtra = "<extra_id_";
  constexpr int kLastToken = 32099;
  if (!absl::StartsWith(text, kExtra)) return {0, 0};
  const size_t end = text.substr(0, kExtra.size() + 3).find('>');
  if (end == text.npos) return {0, 0};
  const std::string_view number = text.substr(kExtra.size(), end - kExtra.size());
  int n = 0;
  for (char digit : number) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(digit))) return {0, 0};
    n = n * 10 + (digit - '0');
  }
  if (number.empty() || (number.size() > 1 && number.front() == '0')) return {0, 0};
  return {kLastToken - n, end + 1};
}

size_t FindSpecialToken(std::string_view text) {
  for (size_t at = text.find('<'); at != text.npos; at = text.find('<', at + 1)) {
    if (SpecialToken(text.substr(at)).second > 0) return at;
  }
  return text.size();
}

std::string WellFormed(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t at = i;
    UChar32 c;
    U8_NEXT(reinterpret_cast<const uint8_t*>(text.data()), i, text.size(), c);
    result += c < 0 ? std::string_view("\uFFFD") : text.substr(at, i - at);
  }
  return result;
}

std::string_view StripTrailingWhitespace(std::string_view text) {
  size_t end = 0;
  for (size_t i = 0; i < text.size();) {
    UChar32 c;
    U8_NEXT(reinterpret_cast<const uint8_t*>(text.data()), i, text.size(), c);
    if (!u_isUWhiteSpace(c)) end = i;
  }
  return text.substr(0, end);
}

// Each run of spaces as one kSpace.
std::string MarkSpaces(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ' ') {
      result += text[i];
    } else if (i == 0 || text[i - 1] != ' ') {
      result += kSpace;
    }
  }
  return result;
}

}  // namespace

struct T5Tokenizer::Impl {
  // The file is part of the program; value() ends it when the build put something else there.
  Model model = ReadModel(EmbeddedT5TokenizerGz()).value();

  // `first`: the text is the prompt's beginning, where a word starts even without a space.
  void EncodeText(std::string_view text, bool first, std::vector<int>* ids) const {
    const std::string normal = model.characters.Apply(text);
    std::string marked = MarkSpaces(StripTrailingWhitespace(normal));
    if (marked.empty()) return;
    if (first && !absl::StartsWith(marked, kSpace)) marked.insert(0, kSpace);
    std::string_view rest = marked;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find(kSpace, 1), rest.size());
      model.pieces.EncodeWord(rest.substr(0, end), ids);
      rest.remove_prefix(end);
    }
  }
};

const T5Tokenizer& T5Tokenizer::Get() {
  static const auto& tokenizer = *new T5Tokenizer;
  return tokenizer;
}

T5Tokenizer::T5Tokenizer() : impl_(std::make_unique<Impl>()) {}
T5Tokenizer::~T5Tokenizer() = default;

std::vector<int> T5Tokenizer::Encode(std::string_view bytes) const {
  const std::string text = WellFormed(bytes);
  std::vector<int> ids;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t special = FindSpecialToken(rest);
    impl_->EncodeText(rest.substr(0, special), rest.size() == text.size(), &ids);
    rest.remove_prefix(special);
    if (rest.empty()) break;
    const auto [id, length] = SpecialToken(rest);
    ids.push_back(id);
    rest.remove_prefix(length);
  }
  return ids;
}

TokenChunks T5Tokenizer::Tokenize(std::string_view prompt, size_t min_length,
                                  VectorSource* source) const {
  const ChunkFormat format{.start = std::nullopt,
                           .end = kEnd,
                           .padding = kPadding,
                           .min_length = min_length,
                           .max_length = std::numeric_limits<size_t>::max()};
  return ChunkPrompt(
      prompt, format, [this](std::string_view text) { return Encode(text); }, source);
}

}  // namespace distorch::text
