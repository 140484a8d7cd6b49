// HTML character references: "&amp;", "&#38;", "&#x26;".
#ifndef LIB_TEXT_HTML_ENTITIES_H_
#define LIB_TEXT_HTML_ENTITIES_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace distorch::text {

// Of a reference, what may stand between '&' and ';' at most; longer names are not looked at.
inline constexpr size_t kMaxHtmlEntityLength = 25;

// The text that `reference` (without '&' and ';') stands for, or nullopt when it is none. A number
// that names no character gives U+FFFD or, for control characters and non-characters, an empty
// text, as the HTML Standard's and Python's readers have it. Names are those of the HTML Standard,
// and all-capitals spellings of lower-case names ("NTILDE").
std::optional<std::u32string> DecodeHtmlEntity(std::string_view reference);

}  // namespace distorch::text

#endif  // LIB_TEXT_HTML_ENTITIES_H_
