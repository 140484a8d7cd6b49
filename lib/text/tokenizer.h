// A text encoder's input: chunks of weighted token ids, as ComfyUI makes them from a prompt.
#ifndef LIB_TEXT_TOKENIZER_H_
#define LIB_TEXT_TOKENIZER_H_

#include <string_view>
#include <vector>

namespace distorch::text {

struct Token {
  int id = 0;
  double weight = 1.0;
  friend bool operator==(const Token&, const Token&) = default;
};
// Each chunk has the encoder's length (77 for CLIP): start token, text, end token, padding.
using TokenChunks = std::vector<std::vector<Token>>;

}  // namespace distorch::text

#endif  // LIB_TEXT_TOKENIZER_H_
