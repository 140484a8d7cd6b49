// What CLIP's tokenizer does to text before it looks for words. The models were trained on text
// that went through ftfy (https://ftfy.readthedocs.io), whitespace collapsing and lower-casing, and
// the reference's token ids carry all three.
#ifndef LIB_TEXT_TEXT_CLEANING_H_
#define LIB_TEXT_TEXT_CLEANING_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace distorch::text {

// Returns `text` as UTF-8 in lower case and normal form C, its runs of whitespace one space each
// and none at the ends. As ftfy does: HTML character references are decoded (unless a '<' stands in
// the same or an earlier line), Latin ligatures taken apart, full- and half-width forms made
// ordinary, curly quotes straightened, C1 controls read as Windows-1252, terminal escapes and other
// control characters dropped. ftfy's guesses at text decoded in a wrong encoding are left out: a
// prompt arrives as UTF-8. Ill-formed UTF-8 becomes U+FFFD. Time is linear in the text.
std::string CleanText(std::string_view text);

// The character that Windows-1252 has at a C1 control's place; other code points, and the five
// places that it leaves free, as they are.
uint32_t C1ToWindows1252(uint32_t code_point);

}  // namespace distorch::text

#endif  // LIB_TEXT_TEXT_CLEANING_H_
