// When which weights are copied into which bytes of the staging buffer: the streamer's decisions
// without its tensors and threads. The streamer runs by them; PredictStep says how long a step
// takes under them.
#ifndef LIB_DISTORCH_STREAM_SCHEDULE_H_
#define LIB_DISTORCH_STREAM_SCHEDULE_H_

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "lib/device/links.h"

namespace distorch {

// Which bytes of a staging buffer are taken: pieces in the order in which they were asked for, from
// the buffer's start again after its end. Not thread-safe.
class StagingRing {
 public:
  static constexpr int64_t kAlignment = 512;  // of every offset; sizes are rounded up to it

  explicit StagingRing(int64_t size) : size_(size) {}

  // Where `bytes` (above 0) go in one piece; nullopt when they do not fit now.
  std::optional<int64_t> Allocate(int64_t bytes);
  // Gives back what was allocated at `offset`. It can be allocated again once everything that was
  // allocated before it is given back, too.
  void Release(int64_t offset);

  int64_t size() const { return size_; }
  int64_t used_bytes() const { return used_; }

 private:
  struct Piece {
    int64_t begin, end;
    bool released = false;
  };
  static int64_t Padded(int64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  int64_t size_;
  int64_t used_ = 0;
  std::deque<Piece> pieces_;  // oldest first
};

// The size of a component's ring where `staging_bytes` are allowed and `elsewhere` bytes are stored
// away from where they compute: at most half of these, or there would be little point in storing
// them elsewhere.
int64_t RingSize(int64_t staging_bytes, int64_t elsewhere);

// What to fetch next, given an order of uses that repeats itself: always the next one that is not
// fetched yet, as soon as the ring holds it, never further ahead than one whole round. What is too
// large for the ring is left to be fetched when it is used, and nothing overtakes it. Not
// thread-safe.
class StreamSchedule {
 public:
  struct Fetch {
    uint64_t turn = 0;   // of the use it is for
    int64_t offset = 0;  // in the ring
  };

  // `bytes` of the uses of one round, at least one; `first` is the turn of the first use to come.
  // `ring` outlives the schedule and may be shared.
  StreamSchedule(std::vector<int64_t> bytes, StagingRing* ring, uint64_t first = 0);

  // Uses are counted through all rounds: the turn's position in the order is turn % size().
  size_t size() const { return bytes_.size(); }
  uint64_t turn() const { return turn_; }  // of the next use

  // The copy to start now, its bytes taken from the ring; nullopt when none is to start before a
  // use ends. The caller releases the offset after the use, or instead of it.
  std::optional<Fetch> Next();
  // The uses before `turn` (not before turn()) are over, or will not come.
  void SkipTo(uint64_t turn) { turn_ = turn; }

 private:
  const std::vector<int64_t> bytes_;
  StagingRing* const ring_;
  uint64_t turn_ = 0, next_fetch_ = 0;
};

// The way of a transfer: over one link, or over two one after the other (through the host).
// Positions in a list of links; -1: none, which takes no time.
struct LinkPath {
  int first = -1;
  int second = -1;
};

// What is under way on each of several links. A link carries one transfer at a time, in the order
// in which they were sent. Times are seconds on any one clock. Not thread-safe.
class LinkQueues {
 public:
  explicit LinkQueues(std::vector<LinkSpeed> links);

  // When `bytes` that may set out at `earliest` have arrived.
  double Send(const LinkPath& path, int64_t bytes, double earliest);
  // What the path's first and second link take for them.
  std::array<double, 2> Seconds(const LinkPath& path, int64_t bytes) const;

 private:
  std::vector<LinkSpeed> links_;
  std::vector<double> free_;  // when each link has done what it was given
};

// The part of a transfer's seconds over each of its links that computing waited for when it waited
// `wait` for the whole: the last link's first, and of no link more than it took.
std::array<double, 2> ExposedSeconds(const std::array<double, 2>& seconds, double wait);

// Something that a step does in its turn: brings `bytes` over a link, or over two one after the
// other (through the host), then computes. Bytes that cross no link are resident and cost nothing.
struct StreamUnit {
  int64_t bytes = 0;
  int link = -1;         // position in the links; -1: resident
  int second_link = -1;  // after `link`; -1: none
  double compute_seconds = 0;

  LinkPath path() const { return {link, second_link}; }
};

struct StreamPrediction {
  double step_seconds = 0;
  // By link, within a step: what computing waited for, and what it did not notice.
  std::vector<double> exposed_seconds, overlapped_seconds;
  int64_t peak_staging_bytes = 0;  // at most the ring's size
};

// What one of many equal steps takes once its order is known, with a ring of `ring_bytes`
// (RingSize); 0: every unit waits for its own transfer. Copies over one link follow one another,
// copies over different links overlap. Deterministic; linear in the number of units.
StreamPrediction PredictStep(std::span<const StreamUnit> units, std::span<const LinkSpeed> links,
                             int64_t ring_bytes);

}  // namespace distorch

#endif  // LIB_DISTORCH_STREAM_SCHEDULE_H_
