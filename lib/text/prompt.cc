#include "lib/text/prompt.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"

namespace distorch::text {
namespace {

constexpr size_t kNone = std::string_view::npos;
constexpr double kEmphasis = 1.1;

// An unescaped parenthesis of the prompt. The table of all of them is what keeps parsing linear: no
// level is scanned again for the partners and colons of the levels in it.
struct Parenthesis {
  size_t position = 0;
  size_t partner = kNone;     // index in the table; kNone when it has none in the whole prompt
  size_t last_colon = kNone;  // position of the last ':' before it
};

std::vector<Parenthesis> FindParentheses(std::string_view prompt) {
  std::vector<Parenthesis> table;
  std::vector<size_t> open;
  size_t last_colon = kNone;
  for (size_t i = 0; i < prompt.size(); ++i) {
    const char c = prompt[i];
    if (c == ':') last_colon = i;
    if ((c != '(' && c != ')') || (i > 0 && prompt[i - 1] == '\\')) continue;
    if (c == '(') {
      open.push_back(table.size());
    } else if (!open.empty()) {
      table[open.back()].partner = table.size();
      open.pop_back();
    }
    table.push_back({.position = i, .last_colon = last_colon});
  }
  return table;
}

// Decimal digits and spaces of any script as their ASCII equals, other characters beyond ASCII as
// '?'.
std::string AsciiNumber(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    UChar32 c;
    U8_NEXT_OR_FFFD(reinterpret_cast<const uint8_t*>(text.data()), i, text.size(), c);
    if (c < 0x80) {
      result.push_back(static_cast<char>(c));
    } else if (u_charType(c) == U_DECIMAL_DIGIT_NUMBER) {
      result.push_back(static_cast<char>('0' + u_charDigitValue(c)));
    } else {
      result.push_back(u_isUWhiteSpace(c) ? ' ' : '?');
    }
  }
  return result;
}

// A number as Python's float() takes it: spaces around it, '_' between digits, exponents, "inf" and
// "nan"; digits of any script.
std::optional<double> ParseWeight(std::string_view text) {
  const std::string ascii = AsciiNumber(text);
  const std::string_view number = absl::StripAsciiWhitespace(ascii);
  std::string plain;
  for (size_t i = 0; i < number.size(); ++i) {
    if (number[i] != '_') {
      plain.push_back(number[i]);
    } else if (i == 0 || i + 1 == number.size() || !absl::ascii_isdigit(number[i - 1]) ||
               !absl::ascii_isdigit(number[i + 1])) {
      return std::nullopt;
    }
  }
  double weight = 0;
  // SimpleAtod also knows C's "0x1p4" and "nan(tag)".
  if (plain.find_first_of("xX(") != plain.npos || !absl::SimpleAtod(plain, &weight)) {
    return std::nullopt;
  }
  return weight;
}

class WeightParser {
 public:
  explicit WeightParser(std::string_view prompt)
      : prompt_(prompt), parentheses_(FindParentheses(prompt)) {}

  std::vector<WeightedText> Parse() {
    pending_.push_back({0, prompt_.size(), 0, parentheses_.size(), 1.0});
    while (!pending_.empty()) {
      const Level level = pending_.back();
      pending_.pop_back();
      Advance(level);
    }
    return std::move(result_);
  }

 private:
  // What is left to read of one level of parentheses: text [begin, end) and the parentheses [first,
  // last) in it.
  struct Level {
    size_t begin, end;
    size_t first, last;
    double weight;
  };

  // Reads up to the level's next group, and leaves on the stack the rest of the level and, above
  // it, the group's inside.
  void Advance(const Level& level) {
    // Below zero after a ')' too many: as many '(' are then plain characters.
    int64_t depth = 0;
    for (size_t i = level.first; i < level.last; ++i) {
      const Parenthesis& parenthesis = parentheses_[i];
      if (prompt_[parenthesis.position] == ')') {
        --depth;
        continue;
      }
      if (depth++ < 0) continue;
      Emit(level.begin, parenthesis.position, level.weight);
      if (parenthesis.partner < level.last) {
        const size_t after = parentheses_[parenthesis.partner].position + 1;
        pending_.push_back({after, level.end, parenthesis.partner + 1, level.last, level.weight});
        Enter(i, parenthesis.partner, level.weight);
      } else if (i + 1 < level.last && prompt_[level.end - 1] == ')' &&
                 parentheses_[level.last - 1].position + 1 == level.end) {
        // A group that is never closed counts as one all the same when a ')' happens to end it.
        Enter(i, level.last - 1, level.weight);
      } else {
        Emit(parenthesis.position, level.end, level.weight);
      }
      return;
    }
    Emit(level.begin, level.end, level.weight);
  }

  // The inside of the group between two parentheses, with its own weight: the number after its last
  // colon, if that is one and something stands before it.
  void Enter(size_t open, size_t close, double outer_weight) {
    Level inside{parentheses_[open].position + 1, parentheses_[close].position, open + 1, close,
                 outer_weight * kEmphasis};
    const size_t colon = parentheses_[close].last_colon;
    const bool colon_splits =
        colon != kNone && colon > inside.begin && colon > parentheses_[close - 1].position;
    if (colon_splits) {
      if (auto weight = ParseWeight(prompt_.substr(colon + 1, inside.end - colon - 1))) {
        inside.weight = *weight;
        inside.end = colon;
      }
    }
    pending_.push_back(inside);
  }

  void Emit(size_t begin, size_t end, double weight) {
    if (begin == end) return;
    result_.push_back(
        {absl::StrReplaceAll(prompt_.substr(begin, end - begin), {{"\\(", "("}, {"\\)", ")"}}),
         weight});
  }

  const std::string_view prompt_;
  const std::vector<Parenthesis> parentheses_;
  std::vector<Level> pending_;
  std::vector<WeightedText> result_;
};

}  // namespace

std::vector<WeightedText> ParsePromptWeights(std::string_view prompt) {
  return WeightParser(prompt).Parse();
}

}  // namespace distorch::text
