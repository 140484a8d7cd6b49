// Learns in which order things are used that are used in rounds.
#ifndef LIB_DISTORCH_STREAM_ORDER_H_
#define LIB_DISTORCH_STREAM_ORDER_H_

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace distorch {

// Things are told apart by their addresses, which are never followed. A round is over when two uses
// follow each other that did so before: what was used from the first of them on is the round.
// Things may be used several times in a round. Not thread-safe.
class StreamOrder {
 public:
  // Takes down a use. How many uses of the round were left out before it: 0 when it is the one that
  // was expected. nullopt when nothing is expected yet, or when it is not of the round: the round
  // is forgotten then, and learned anew.
  std::optional<size_t> Use(const void* what);

  // Empty until it is learned.
  const std::vector<const void*>& round() const { return round_; }
  // Of the next use in the round.
  size_t position() const { return position_; }

 private:
  void Learn(const void* what);

  std::vector<const void*> round_;
  size_t position_ = 0;
  std::vector<const void*> seen_;                                           // while learning
  absl::flat_hash_map<std::pair<const void*, const void*>, size_t> pairs_;  // in seen_, where first
};

}  // namespace distorch

#endif  // LIB_DISTORCH_STREAM_ORDER_H_
