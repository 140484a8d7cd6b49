// The unigram language model: "Subword Regularization" (Kudo, 2018), the most probable
// segmentation of a word into pieces of a vocabulary.
#ifndef LIB_TEXT_UNIGRAM_H_
#define LIB_TEXT_UNIGRAM_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace distorch::text {

// Immutable, so thread-safe.
class Unigram {
 public:
  struct Piece {
    std::string text;
    double score = 0;  // log probability
  };

  // A token's id is its piece's index; `unknown` is the id of what no piece covers.
  // INVALID_ARGUMENT when a piece is empty, longer than kMaxPieceBytes or there twice, a score is
  // no number, or `unknown` is none of the ids.
  static absl::StatusOr<Unigram> Create(const std::vector<Piece>& pieces, int unknown);

  // Appends the tokens of `word` (well-formed UTF-8). Neighbouring unknown characters make one
  // token. Time is linear in the word's length.
  void EncodeWord(std::string_view word, std::vector<int>* tokens) const;

  static constexpr size_t kMaxPieceBytes = 64;

 private:
  static constexpr int32_t kNone = -1;

  // A node of the trie of all pieces; its children are in children_.
  struct Node {
    int32_t piece = kNone;  // that ends here
  };
  static uint64_t Edge(uint32_t node, char byte) {
    return (uint64_t{node} << 8) | static_cast<unsigned char>(byte);
  }

  absl::flat_hash_map<uint64_t, uint32_t> children_;  // by Edge(parent, byte)
  std::vector<Node> nodes_;                           // nodes_[0] is the root
  std::vector<double> scores_;
  double unknown_score_ = 0;
  int unknown_ = 0;
};

}  // namespace distorch::text

#endif  // LIB_TEXT_UNIGRAM_H_
