// Data files linked into the program as they are (see NOTICE.md for what they hold).
#ifndef LIB_TEXT_VOCAB_EMBEDDED_H_
#define LIB_TEXT_VOCAB_EMBEDDED_H_

#include <string_view>

namespace distorch::text {

// The gzip file of CLIP's merges: a header line, then one "left right" a line, the most frequent
// first.
std::string_view EmbeddedClipMergesGz();

// "name codepoint…" a line, code points in hexadecimal.
std::string_view EmbeddedHtmlEntities();

// The gzip file of T5's tokenizer.json: its pieces with their scores, its character map.
std::string_view EmbeddedT5TokenizerGz();

}  // namespace distorch::text

#endif  // LIB_TEXT_VOCAB_EMBEDDED_H_
