// A user's text inside a message.
#ifndef LIB_BASE_QUOTE_H_
#define LIB_BASE_QUOTE_H_

#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace distorch {

// 'text' between single quotes, escaped to printable ASCII; what is past 64 bytes becomes "...", so
// that a message stays a message whatever was sent.
inline std::string Quote(std::string_view text) {
  constexpr size_t kShown = 64;
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kShown)),
                      text.size() > kShown ? "...'" : "'");
}

}  // namespace distorch

#endif  // LIB_BASE_QUOTE_H_
