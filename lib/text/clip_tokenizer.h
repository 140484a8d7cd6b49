// CLIP's byte-level BPE tokenizer:
// https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py, in the variant of Hugging
// Face's CLIPTokenizer that ComfyUI uses, with ftfy's text normalisation (text_cleaning.h).
#ifndef LIB_TEXT_CLIP_TOKENIZER_H_
#define LIB_TEXT_CLIP_TOKENIZER_H_

#include <memory>
#include <string_view>
#include <vector>

#include "lib/text/tokenizer.h"

namespace distorch::text {

// Immutable and thread-safe. One instance serves all CLIP encoders; the vocabulary is compiled into
// the program.
class ClipTokenizer {
 public:
  static constexpr int kStart = 49406;
  static constexpr int kEnd = 49407;
  static constexpr int kChunkLength = 77;

  static const ClipTokenizer& Get();

  // The ids of plain text, without start, end or padding. Any bytes are text; ill-formed UTF-8
  // counts as U+FFFD. Time is O(n log n) in the text's length.
  std::vector<int> Encode(std::string_view text) const;

  // A prompt in ComfyUI's syntax (prompt_chunks.h) to one or more chunks of kChunkLength.
  // `pad_token` is kEnd for CLIP-L and 0 for CLIP-G and -H.
  TokenChunks Tokenize(std::string_view prompt, int pad_token = kEnd,
                       VectorSource* source = nullptr) const;

  ~ClipTokenizer();

 private:
  ClipTokenizer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace distorch::text

#endif  // LIB_TEXT_CLIP_TOKENIZER_H_
