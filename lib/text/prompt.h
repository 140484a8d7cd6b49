// ComfyUI's prompt syntax: (more) [no meaning] (weighted:1.3) \(literal\), nested.
#ifndef LIB_TEXT_PROMPT_H_
#define LIB_TEXT_PROMPT_H_

#include <string>
#include <string_view>
#include <vector>

namespace distorch::text {

struct WeightedText {
  std::string text;
  double weight = 1.0;
};

// Splits `prompt` into runs of one weight: each level of parentheses multiplies by 1.1, or by the
// number after the last colon in it. Escaped parentheses come out as plain ones. Any text parses; a
// prompt never fails. Depth is bounded by the prompt's length, not by the stack.
std::vector<WeightedText> ParsePromptWeights(std::string_view prompt);

}  // namespace distorch::text

#endif  // LIB_TEXT_PROMPT_H_
