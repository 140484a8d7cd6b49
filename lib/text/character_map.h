// SentencePiece's "precompiled charsmap": replacements for characters and short sequences of them,
// NFKC and some more.
// https://github.com/google/sentencepiece/blob/master/src/normalizer.h
#ifndef LIB_TEXT_CHARACTER_MAP_H_
#define LIB_TEXT_CHARACTER_MAP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace distorch::text {

// Immutable, so thread-safe.
class CharacterMap {
 public:
  // `blob`: the size of a double-array trie (little-endian, as is all of it), the trie
  // (https://github.com/s-yata/darts-clone), and the replacements, each ended by a zero byte.
  // INVALID_ARGUMENT when it is cut short.
  static absl::StatusOr<CharacterMap> Parse(std::string_view blob);

  // `text` (well-formed UTF-8) with its user-perceived characters of up to 5 bytes, and else its
  // code points, replaced where the map has them. Of a character that only begins with an entry,
  // the rest is dropped: so does the reference's tokenizer. Time is linear in the text.
  std::string Apply(std::string_view text) const;

 private:
  // The replacement of the shortest entry that `text` begins with.
  std::optional<std::string_view> Find(std::string_view text) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace distorch::text

#endif  // LIB_TEXT_CHARACTER_MAP_H_
