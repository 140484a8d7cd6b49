// The time that simulated transfers go by on one compute device.
#ifndef LIB_DISTORCH_TIMELINE_H_
#define LIB_DISTORCH_TIMELINE_H_

#include <algorithm>
#include <atomic>
#include <functional>
#include <utility>

namespace distorch {

// The wall clock, plus the waits that were skipped instead of slept, less what only the simulation
// took. One thread at a time may move it; shift() may be read by any.
class Timeline {
 public:
  // `wall_clock` gives seconds.
  explicit Timeline(std::function<double()> wall_clock) : wall_clock_(std::move(wall_clock)) {}

  double now() const { return wall_clock_() + shift(); }
  // How far it is ahead of the wall clock. What something took on the timeline is what it took by
  // the wall clock and what the shift grew by meanwhile.
  double shift() const { return shift_.load(std::memory_order_relaxed); }

  // Skips until `time`, unless that is past. Returns what was skipped.
  double SkipTo(double time) {
    const double skipped = std::max(0.0, time - now());
    Move(skipped);
    return skipped;
  }
  // Does `work` in no time.
  template <typename Work>
  void InNoTime(Work work) {
    const double start = wall_clock_();
    work();
    Move(start - wall_clock_());
  }

 private:
  void Move(double seconds) { shift_.store(shift() + seconds, std::memory_order_relaxed); }

  const std::function<double()> wall_clock_;
  std::atomic<double> shift_{0};
};

}  // namespace distorch

#endif  // LIB_DISTORCH_TIMELINE_H_
