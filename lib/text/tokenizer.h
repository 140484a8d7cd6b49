// A text encoder's input: chunks of weighted tokens, as ComfyUI makes them from a prompt.
#ifndef LIB_TEXT_TOKENIZER_H_
#define LIB_TEXT_TOKENIZER_H_

#include <optional>
#include <string_view>
#include <vector>

namespace distorch::text {

struct Token {
  int id = 0;
  double weight = 1.0;
  // Not negative: the index of the vector that stands in the place of an id's embedding.
  int vector = -1;
  friend bool operator==(const Token&, const Token&) = default;
};
// Each chunk has the encoder's length (77 for CLIP): start token, text, end token, padding.
using TokenChunks = std::vector<std::vector<Token>>;

// Consecutive indices of vectors.
struct VectorRange {
  int first = 0, count = 0;
};

// What "embedding:name" in a prompt stands for.
class VectorSource {
 public:
  virtual ~VectorSource() = default;
  // nullopt when there are none of that name.
  virtual std::optional<VectorRange> Find(std::string_view name) = 0;
  // The prompt asked for `name`, which Find did not know in any spelling; it is left out.
  virtual void Missing(std::string_view name) = 0;
};

}  // namespace distorch::text

#endif  // LIB_TEXT_TOKENIZER_H_
