#include "lib/distorch/stream_order.h"

namespace distorch {

std::optional<size_t> StreamOrder::Use(const void* what) {
  for (size_t skipped = 0; skipped < round_.size(); ++skipped) {
    const size_t at = (position_ + skipped) % round_.size();
    if (round_[at] != what) continue;
    position_ = (at + 1) % round_.size();
    return skipped;
  }
  round_.clear();
  Learn(what);
  return std::nullopt;
}

void StreamOrder::Learn(const void* what) {
  seen_.push_back(what);
  if (seen_.size() < 2) return;
  const auto [pair, is_new] = pairs_.try_emplace({seen_[seen_.size() - 2], what}, seen_.size() - 2);
  if (is_new) return;
  // The pair's second half is the round's second use.
  round_.assign(seen_.begin() + static_cast<std::ptrdiff_t>(pair->second), seen_.end() - 2);
  position_ = 2 % round_.size();
  seen_.clear();
  pairs_.clear();
}

}  // namespace distorch
