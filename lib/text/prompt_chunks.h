// What the tokenizers of all text encoders do with a prompt's syntax: weights, embeddings, chunks.
#ifndef LIB_TEXT_PROMPT_CHUNKS_H_
#define LIB_TEXT_PROMPT_CHUNKS_H_

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "lib/text/tokenizer.h"

namespace distorch::text {

struct ChunkFormat {
  std::optional<int> start;  // the token that opens a chunk, if one does
  int end = 0;               // the token that closes its text
  int padding = 0;
  size_t min_length = 0, max_length = 0;  // of a chunk, with start, end and padding
};

// The chunks of a prompt in ComfyUI's syntax, at least one. `encode` gives the ids of plain text.
// Runs of one weight stay together where ComfyUI keeps them: one of fewer than 8 tokens that does
// not fit starts the next chunk. The vectors of an "embedding:name" are such a run; what follows
// the name after a space, and commas around a name that only exists without them, are text. Without
// a `source`, "embedding:name" is text like any other.
TokenChunks ChunkPrompt(std::string_view prompt, const ChunkFormat& format,
                        absl::FunctionRef<std::vector<int>(std::string_view text)> encode,
                        VectorSource* source);

}  // namespace distorch::text

#endif  // LIB_TEXT_PROMPT_CHUNKS_H_
