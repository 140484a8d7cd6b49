// UTF-8 checks and the quoting of foreign text in messages.
#ifndef LIB_BASE_UTF8_H_
#define LIB_BASE_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace distorch {

// Bytes of the longest prefix of `text` that is valid UTF-8 (RFC 3629: no surrogates, nothing
// overlong); text.size() when all of it is.
std::size_t Utf8PrefixLength(std::string_view text);

// `text` in single quotes, fit for a message whoever wrote it: valid UTF-8, one line, quotes and
// control characters escaped as in C, cut to about 120 bytes with "..." at the cut.
std::string Quoted(std::string_view text);

}  // namespace distorch

#endif  // LIB_BASE_UTF8_H_
