#include "lib/text/byte_pair_encoding.h"

#include <algorithm>
#include <array>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_macros.h"
#include "lib/text/gunzip.h"

namespace distorch::text {
namespace {

constexpr std::string_view kEndOfWord = "</w>";

// In GPT-2's vocabulary files every byte has a printable character: itself where Latin-1 has a
// printable one, else one from U+0100 on. Tokens number the bytes in that order, the printable ones
// first.
struct ByteAlphabet {
  std::array<int, 256> token_of_byte;
  std::array<std::string, 256> spelling_of_token;
};

std::string Utf8(int c) {  // c < U+0800
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
}

ByteAlphabet MakeByteAlphabet() {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  ByteAlphabet alphabet;
  int token = 0;
  for (bool wanted : {true, false}) {
    int substitute = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      if (printable(byte) != wanted) continue;
      alphabet.token_of_byte[byte] = token;
      alphabet.spelling_of_token[token++] = Utf8(wanted ? byte : substitute++);
    }
  }
  return alphabet;
}

const ByteAlphabet& Alphabet() {
  static const auto& alphabet = *new ByteAlphabet(MakeByteAlphabet());
  return alphabet;
}

}  // namespace

absl::StatusOr<BytePairEncoding> BytePairEncoding::FromGzip(std::string_view gz, int merge_count) {
  ASSIGN_OR_RETURN(const std::string text, GunzipLines(gz, merge_count + 1));
  absl::flat_hash_map<std::string, int> token_of_spelling;
  for (int token = 0; token < 256; ++token) {
    const std::string& spelling = Alphabet().spelling_of_token[token];
    token_of_spelling[spelling] = token;
    token_of_spelling[absl::StrCat(spelling, kEndOfWord)] = token + 256;
  }

  BytePairEncoding encoding;
  bool header = true;
  for (std::string_view line : absl::StrSplit(text, '\n')) {
    if (std::exchange(header, false)) continue;
    if (static_cast<int>(encoding.merges_.size()) == merge_count) break;
    const std::pair<std::string_view, std::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(' ', 1));
    const auto left = token_of_spelling.find(parts.first);
    const auto right = token_of_spelling.find(parts.second);
    if (left == token_of_spelling.end() || right == token_of_spelling.end()) {
      return absl::InvalidArgumentError(absl::StrCat("merge ", encoding.merges_.size(), " (\"",
                                                     line, "\") is not of two earlier tokens"));
    }
    const Pair pair(left->second, right->second);
    const int token = encoding.size();
    if (!token_of_spelling.emplace(absl::StrCat(parts.first, parts.second), token).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge ", encoding.merges_.size(), " (\"", line, "\") makes a known token"));
    }
    encoding.merges_.push_back(pair);
    encoding.token_.emplace(pair, token);
  }
  if (static_cast<int>(encoding.merges_.size()) < merge_count) {
    return absl::InvalidArgumentError(
        absl::StrCat("only ", encoding.merges_.size(), " of ", merge_count, " merges"));
  }
  return encoding;
}

void BytePairEncoding::EncodeWord(std::string_view word, std::vector<int>* tokens) const {
  std::vector<int> symbols;
  symbols.reserve(word.size());
  for (char byte : word) {
    symbols.push_back(Alphabet().token_of_byte[static_cast<unsigned char>(byte)]);
  }
  symbols.back() += 256;
  MergeAll(&symbols);
  tokens->insert(tokens->end(), symbols.begin(), symbols.end());
}

// The plain algorithm merges all places of the lowest-ranked pair, from the left, and looks for the
// next pair. A merge only makes pairs of higher rank than its own, so a heap of (rank, place) meets
// the same merges in the same order.
void BytePairEncoding::MergeAll(std::vector<int>* symbols) const {
  constexpr int kGone = -1;
  struct Candidate {
    int token;  // what the merge makes
    uint32_t left, right;
    bool operator>(const Candidate& other) const {
      return token != other.token ? token > other.token : left > other.left;
    }
  };
  std::vector<int>& symbol = *symbols;
  const uint32_t count = symbol.size();
  std::vector<uint32_t> previous(count), next(count);
  std::vector<Candidate> heap;
  const auto push = [&](uint32_t left, uint32_t right) {
    const auto found = token_.find(Pair(symbol[left], symbol[right]));
    if (found == token_.end()) return;
    heap.push_back({found->second, left, right});
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (uint32_t i = 0; i < count; ++i) {
    previous[i] = i - 1;
    next[i] = i + 1;
    if (i > 0) push(i - 1, i);
  }

  while (!heap.empty()) {
    const Candidate best = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    // Another merge may have taken either half since.
    if (Pair(symbol[best.left], symbol[best.right]) != merges_[best.token - kFirstMerge]) continue;
    symbol[best.left] = best.token;
    symbol[best.right] = kGone;
    const uint32_t after = next[best.right];
    next[best.left] = after;
    if (best.left > 0) push(previous[best.left], best.left);
    if (after < count) {
      previous[after] = best.left;
      push(best.left, after);
    }
  }
  std::erase(symbol, kGone);
}

}  // namespace distorch::text
