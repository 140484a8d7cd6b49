#include "lib/text/vocab/embedded.h"

extern "C" {
extern const char distorch_clip_merges_begin[], distorch_clip_merges_end[];
extern const char distorch_html_entities_begin[], distorch_html_entities_end[];
extern const char distorch_t5_tokenizer_begin[], distorch_t5_tokenizer_end[];
}

namespace distorch::text {

std::string_view EmbeddedClipMergesGz() {
  return {distorch_clip_merges_begin, distorch_clip_merges_end};
}

std::string_view EmbeddedHtmlEntities() {
  return {distorch_html_entities_begin, distorch_html_entities_end};
}

std::string_view EmbeddedT5TokenizerGz() {
  return {distorch_t5_tokenizer_begin, distorch_t5_tokenizer_end};
}

}  // namespace distorch::text
