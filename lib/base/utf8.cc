#include "lib/base/utf8.h"

#include <utf8proc.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

constexpr std::size_t kMaxQuotedBytes = 120;
constexpr std::size_t kMaxCharacterBytes = 4;

}  // namespace

std::size_t Utf8PrefixLength(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  std::size_t position = 0;
  while (position < text.size()) {
    utf8proc_int32_t code_point;
    const utf8proc_ssize_t length = utf8proc_iterate(
        bytes + position, static_cast<utf8proc_ssize_t>(text.size() - position), &code_point);
    if (length <= 0) break;
    position += static_cast<std::size_t>(length);
  }
  return position;
}

std::string Quoted(std::string_view text) {
  std::string_view shown = text.substr(0, kMaxQuotedBytes);
  const std::size_t valid = Utf8PrefixLength(shown);
  const bool cut = shown.size() < text.size();
  // A cut may have split the last character.
  if (cut && shown.size() - valid < kMaxCharacterBytes) shown = shown.substr(0, valid);
  return absl::StrCat("'",
                      valid >= shown.size() ? absl::Utf8SafeCEscape(shown) : absl::CEscape(shown),
                      cut ? "..." : "", "'");
}

}  // namespace distorch
