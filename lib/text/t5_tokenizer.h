// T5's tokenizer: a SentencePiece unigram model (https://github.com/google/sentencepiece), in the
// variant of Hugging Face's T5TokenizerFast that ComfyUI uses.
#ifndef LIB_TEXT_T5_TOKENIZER_H_
#define LIB_TEXT_T5_TOKENIZER_H_

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "lib/text/tokenizer.h"

namespace distorch::text {

// Immutable and thread-safe; the vocabulary is compiled into the program.
class T5Tokenizer {
 public:
  static constexpr int kPadding = 0;
  static constexpr int kEnd = 1;
  static constexpr int kUnknown = 2;
  // What the families pad a prompt to.
  static constexpr size_t kSd3Length = 77;
  static constexpr size_t kFluxLength = 256;

  static const T5Tokenizer& Get();

  // The ids of plain text, without end or padding. Any bytes are text; ill-formed UTF-8 counts as
  // U+FFFD. Time is linear in the text's length.
  std::vector<int> Encode(std::string_view text) const;

  // A prompt in ComfyUI's syntax (prompt_chunks.h): one chunk of any length, padded to
  // `min_length`.
  TokenChunks Tokenize(std::string_view prompt, size_t min_length,
                       VectorSource* source = nullptr) const;

  ~T5Tokenizer();

 private:
  T5Tokenizer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace distorch::text

#endif  // LIB_TEXT_T5_TOKENIZER_H_
