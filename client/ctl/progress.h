// Shows how far a call is: one redrawn line on a terminal, a few whole lines on anything else.
#ifndef CLIENT_CTL_PROGRESS_H_
#define CLIENT_CTL_PROGRESS_H_

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "client/ctl/render.h"

namespace distorch::ctl {

// Not thread-safe. Writes to `out`, which must outlive it; a null `out` shows nothing.
// Not on a terminal, a line is written when a phase starts and at each tenth of it, so that logs
// stay short.
class Progress {
 public:
  // `now` is the clock of rates and remaining times.
  Progress(std::FILE* out, const Terminal& terminal, std::function<absl::Time()> now);
  // Takes the line off the terminal, so that what follows starts clean.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // A phase that cannot say how far it is.
  void Phase(std::string_view phase);
  // Waiting for a device: 1 is the next. `seconds`: predicted until its turn; 0: not known.
  void Queue(int position, double seconds);
  // `total` 0: unknown. Rate: over the phase so far.
  void Bytes(std::string_view phase, int64_t done, int64_t total);
  // `seconds` is what this step took; the mean of the steps so far tells the time left.
  void Step(int step, int steps, double seconds);

 private:
  // Notes a change of phase; true when `phase` is new.
  bool Enter(std::string_view phase);
  // `text` follows the phase's name and, on a terminal, a bar.
  void Show(bool new_phase, double fraction, const std::string& text);

  std::FILE* const out_;
  const Terminal terminal_;
  const std::function<absl::Time()> now_;
  std::string phase_;
  absl::Time phase_start_ = absl::InfinitePast();
  absl::Time last_drawn_ = absl::InfinitePast();
  int64_t bytes_at_start_ = 0;
  int steps_seen_ = 0;
  double step_seconds_ = 0;
  int tenth_ = 0;     // of the phase, last written
  int position_ = 0;  // in the queue
  bool drawn_ = false;
};

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_PROGRESS_H_
