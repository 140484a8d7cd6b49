#include "lib/text/html_entities.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "lib/text/text_cleaning.h"
#include "lib/text/vocab/embedded.h"

namespace distorch::text {
namespace {

using EntityTable = absl::flat_hash_map<std::string_view, std::u32string>;

EntityTable ReadTable() {
  EntityTable table;
  for (std::string_view line : absl::StrSplit(EmbeddedHtmlEntities(), '\n', absl::SkipEmpty())) {
    std::vector<std::string_view> fields = absl::StrSplit(line, ' ');
    std::u32string& text = table[fields[0]];
    for (size_t i = 1; i < fields.size(); ++i) {
      uint32_t code_point = 0;
      if (absl::SimpleHexAtoi(fields[i], &code_point)) text.push_back(code_point);
    }
  }
  return table;
}

bool IsNonCharacter(uint32_t c) { return (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE; }

bool IsForbiddenControl(uint32_t c) {
  return (c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F;
}

std::optional<std::u32string> DecodeNumber(std::string_view digits) {
  const bool hex = !digits.empty() && (digits[0] == 'x' || digits[0] == 'X');
  if (hex) digits.remove_prefix(1);
  if (digits.empty()) return std::nullopt;
  constexpr uint32_t kBeyondUnicode = 0x110000;
  uint32_t code_point = 0;
  for (char digit : digits) {
    const bool valid = hex ? absl::ascii_isxdigit(digit) : absl::ascii_isdigit(digit);
    if (!valid) return std::nullopt;
    const uint32_t value = absl::ascii_isdigit(digit) ? digit - '0' : (digit | 0x20) - 'a' + 10;
    code_point = std::min(code_point * (hex ? 16 : 10) + value, kBeyondUnicode);
  }
  if (code_point == ';') return std::nullopt;
  if (code_point == 0 || code_point >= kBeyondUnicode || (code_point & ~0x7FFu) == 0xD800) {
    return U"\uFFFD";
  }
  code_point = C1ToWindows1252(code_point);
  if (IsForbiddenControl(code_point) || IsNonCharacter(code_point)) return U"";
  return std::u32string(1, code_point);
}

}  // namespace

std::optional<std::u32string> DecodeHtmlEntity(std::string_view reference) {
  if (!reference.empty() && reference[0] == '#') return DecodeNumber(reference.substr(1));
  static const auto& table = *new EntityTable(ReadTable());
  auto found = table.find(reference);
  if (found == table.end()) return std::nullopt;
  return found->second;
}

}  // namespace distorch::text
