#include "lib/text/character_map.h"

#include <unicode/utf8.h>
#include <utf8proc.h>

#include "absl/strings/str_cat.h"

namespace distorch::text {
namespace {

constexpr size_t kMaxMappedCharacter = 5;  // bytes

uint32_t LittleEndian32(const char* bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = (value << 8) | static_cast<unsigned char>(bytes[i]);
  return value;
}

// A unit of darts-clone's double array.
struct Unit {
  uint32_t bits;
  bool has_leaf() const { return ((bits >> 8) & 1) != 0; }
  uint32_t value() const { return bits & 0x7FFFFFFF; }
  uint32_t label() const { return bits & 0x800000FF; }
  uint32_t offset() const { return (bits >> 10) << ((bits & (1U << 9)) >> 6); }
};

// The bytes of the user-perceived character (extended grapheme cluster) that starts at `at`.
size_t ClusterBytes(std::string_view text, size_t at) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  size_t end = at;
  UChar32 previous;
  U8_NEXT(bytes, end, text.size(), previous);
  utf8proc_int32_t state = 0;
  while (end < text.size()) {
    size_t after = end;
    UChar32 next;
    U8_NEXT(bytes, after, text.size(), next);
    if (utf8proc_grapheme_break_stateful(previous, next, &state)) break;
    previous = next;
    end = after;
  }
  return end - at;
}

}  // namespace

absl::StatusOr<CharacterMap> CharacterMap::Parse(std::string_view blob) {
  constexpr size_t kUnit = sizeof(uint32_t);
  const size_t trie = blob.size() < kUnit ? 0 : LittleEndian32(blob.data());
  if (trie == 0 || trie % kUnit != 0 || trie > blob.size() - kUnit) {
    return absl::InvalidArgumentError(
        absl::StrCat("a character map of ", blob.size(), " bytes cannot have a trie of ", trie));
  }
  CharacterMap map;
  for (size_t i = 0; i < trie; i += kUnit) {
    map.units_.push_back(LittleEndian32(blob.data() + kUnit + i));
  }
  map.replacements_ = std::string(blob.substr(kUnit + trie));
  return map;
}

std::optional<std::string_view> CharacterMap::Find(std::string_view text) const {
  size_t node = Unit{units_[0]}.offset();
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    node ^= byte;
    if (byte == 0 || node >= units_.size()) return std::nullopt;
    const Unit unit{units_[node]};
    if (unit.label() != byte) return std::nullopt;
    node ^= unit.offset();
    if (!unit.has_leaf()) continue;
    const size_t at = node < units_.size() ? Unit{units_[node]}.value() : replacements_.size();
    if (at >= replacements_.size()) return std::nullopt;
    const std::string_view rest = std::string_view(replacements_).substr(at);
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

std::string CharacterMap::Apply(std::string_view text) const {
  std::string result;
  result.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    std::string_view cluster = text.substr(at, ClusterBytes(text, at));
    at += cluster.size();
    if (cluster.size() <= kMaxMappedCharacter) {
      if (const auto replacement = Find(cluster)) {
        result += *replacement;
        continue;
      }
    }
    while (!cluster.empty()) {
      size_t length = 0;
      U8_FWD_1(reinterpret_cast<const uint8_t*>(cluster.data()), length, cluster.size());
      const std::string_view character = cluster.substr(0, length);
      result += Find(character).value_or(character);
      cluster.remove_prefix(length);
    }
  }
  return result;
}

}  // namespace distorch::text
