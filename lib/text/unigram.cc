#include "lib/text/unigram.h"

#include <unicode/utf8.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace distorch::text {
namespace {

// How much less probable than the rarest piece an unknown character is.
constexpr double kUnknownPenalty = 10.0;

size_t CharacterBytes(std::string_view text, size_t at) {
  size_t end = at;
  U8_FWD_1(reinterpret_cast<const uint8_t*>(text.data()), end, text.size());
  return end - at;
}

}  // namespace

absl::StatusOr<Unigram> Unigram::Create(const std::vector<Piece>& pieces, int unknown) {
  if (unknown < 0 || static_cast<size_t>(unknown) >= pieces.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the unknown token ", unknown, " is none of ", pieces.size()));
  }
  Unigram model;
  model.unknown_ = unknown;
  model.nodes_.emplace_back();
  for (size_t id = 0; id < pieces.size(); ++id) {
    const auto& [text, score] = pieces[id];
    if (text.empty() || text.size() > kMaxPieceBytes || !std::isfinite(score)) {
      return absl::InvalidArgumentError(absl::StrCat("piece ", id, " has ", text.size(),
                                                     " bytes and score ", score, "; allowed: 1 to ",
                                                     kMaxPieceBytes, " bytes, finite scores"));
    }
    uint32_t node = 0;
    for (char byte : text) {
      const auto [child, is_new] =
          model.children_.try_emplace(Edge(node, byte), static_cast<uint32_t>(model.nodes_.size()));
      node = child->second;
      if (is_new) model.nodes_.emplace_back();
    }
    if (model.nodes_[node].piece != kNone) {
      return absl::InvalidArgumentError(
          absl::StrCat("pieces ", model.nodes_[node].piece, " and ", id, " are equal"));
    }
    model.nodes_[node].piece = static_cast<int32_t>(id);
    model.scores_.push_back(score);
  }
  model.unknown_score_ =
      *std::min_element(model.scores_.begin(), model.scores_.end()) - kUnknownPenalty;
  return model;
}

// Viterbi's algorithm over the characters' boundaries: the best segmentation up to each.
void Unigram::EncodeWord(std::string_view word, std::vector<int>* tokens) const {
  struct Best {
    int32_t token = kNone;  // the last of the segmentation; kNone while there is none
    size_t start = 0;       // of that token
    double score = 0;
  };
  std::vector<Best> best(word.size() + 1);
  for (size_t at = 0; at < word.size();) {
    const double score = best[at].score;
    const auto offer = [&](size_t end, int32_t token, double token_score) {
      Best& target = best[end];
      if (target.token != kNone && score + token_score <= target.score) return;
      target = {token, at, score + token_score};
    };
    const size_t next = at + CharacterBytes(word, at);
    bool known = false;
    uint32_t node = 0;
    for (size_t end = at; end < word.size();) {
      const auto child = children_.find(Edge(node, word[end++]));
      if (child == children_.end()) break;
      node = child->second;
      const int32_t piece = nodes_[node].piece;
      if (piece == kNone) continue;
      offer(end, piece, scores_[static_cast<size_t>(piece)]);
      known = known || end == next;
    }
    if (!known) offer(next, unknown_, unknown_score_);
    at = next;
  }

  const auto first = static_cast<std::ptrdiff_t>(tokens->size());
  for (size_t end = word.size(); end > 0; end = best[end].start) {
    const int token = best[end].token;
    const bool again = token == unknown_ && end < word.size() && tokens->back() == unknown_;
    if (!again) tokens->push_back(token);
  }
  std::reverse(tokens->begin() + first, tokens->end());
}

}  // namespace distorch::text
