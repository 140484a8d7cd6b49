// Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; over bytes as in GPT-2)
// with CLIP's numbering of tokens.
#ifndef LIB_TEXT_BYTE_PAIR_ENCODING_H_
#define LIB_TEXT_BYTE_PAIR_ENCODING_H_

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace distorch::text {

// Tokens 0…255 are the bytes, 256…511 the bytes that end a word, and 512 + i what the i-th merge
// makes of two earlier tokens. A token's number is thus also its merge's rank. Immutable, so
// thread-safe.
class BytePairEncoding {
 public:
  // Reads the first `merge_count` merges of a gzip file in CLIP's format. INVALID_ARGUMENT when it
  // holds fewer, or one that does not follow from those before it.
  static absl::StatusOr<BytePairEncoding> FromGzip(std::string_view gz, int merge_count);

  // Appends the tokens of one word (its bytes, not empty) to `tokens`, in O(n log n).
  void EncodeWord(std::string_view word, std::vector<int>* tokens) const;

  int size() const { return kFirstMerge + static_cast<int>(merges_.size()); }

 private:
  static constexpr int kFirstMerge = 512;
  using Pair = std::pair<int, int>;

  void MergeAll(std::vector<int>* symbols) const;

  std::vector<Pair> merges_;              // by token - kFirstMerge
  absl::flat_hash_map<Pair, int> token_;  // the inverse
};

}  // namespace distorch::text

#endif  // LIB_TEXT_BYTE_PAIR_ENCODING_H_
