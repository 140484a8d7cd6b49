#include "client/ctl/progress.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace distorch::ctl {
namespace {

constexpr absl::Duration kRedraw = absl::Milliseconds(40);
constexpr char kSteps[] = "sample", kQueue[] = "queue";
constexpr char kEraseLine[] = "\r\x1b[K";

}  // namespace

Progress::Progress(std::FILE* out, const Terminal& terminal, std::function<absl::Time()> now)
    : out_(out), terminal_(terminal), now_(std::move(now)) {}

Progress::~Progress() {
  if (!drawn_) return;
  std::fputs(kEraseLine, out_);
  std::fflush(out_);
}

void Progress::Phase(std::string_view phase) {
  if (Enter(phase)) Show(true, 0, "");
}

void Progress::Queue(int position, double seconds) {
  Enter(kQueue);
  const bool moved = position != position_;
  position_ = position;
  Show(moved, 0,
       absl::StrCat("number ", position,
                    seconds > 0 ? absl::StrCat("  about ", FormatSeconds(seconds)) : ""));
}

void Progress::Bytes(std::string_view phase, int64_t done, int64_t total) {
  bool is_new = Enter(phase);
  if (is_new) bytes_at_start_ = done;
  if (total <= 0) return Show(is_new, 0, "");
  double fraction = static_cast<double>(done) / static_cast<double>(total);
  std::string text =
      absl::StrFormat("%3.0f %%  %s of %s", fraction * 100, FormatBytes(done), FormatBytes(total));
  double elapsed = absl::ToDoubleSeconds(now_() - phase_start_);
  if (elapsed > 0 && done > bytes_at_start_) {
    auto rate = static_cast<int64_t>(static_cast<double>(done - bytes_at_start_) / elapsed);
    absl::StrAppend(&text, "  ", FormatBytes(rate), "/s");
  }
  Show(is_new, fraction, text);
}

void Progress::Step(int step, int steps, double seconds) {
  // The phase announced as "sample" is the one the steps belong to: a line for each would say the
  // same twice.
  bool is_new = Enter(kSteps);
  ++steps_seen_;
  step_seconds_ += seconds;
  double mean = step_seconds_ / steps_seen_;
  double fraction = steps > 0 ? static_cast<double>(step) / steps : 0;
  Show(is_new, fraction,
       absl::StrFormat("step %d of %d  %s/step  %s left", step, steps, FormatSeconds(mean),
                       FormatSeconds(mean * std::max(0, steps - step))));
}

bool Progress::Enter(std::string_view phase) {
  if (phase == phase_) return false;
  phase_ = phase;
  phase_start_ = now_();
  steps_seen_ = 0;
  step_seconds_ = 0;
  tenth_ = 0;
  position_ = 0;
  return true;
}

void Progress::Show(bool new_phase, double fraction, const std::string& text) {
  if (out_ == nullptr) return;
  std::string phase = Printable(phase_);
  if (!terminal_.tty) {
    int tenth = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * 10);
    if (!new_phase && tenth == tenth_) return;
    tenth_ = tenth;
    absl::FPrintF(out_, "%s%s%s\n", phase, text.empty() ? "" : "  ", text);
    std::fflush(out_);
    return;
  }
  absl::Time now = now_();
  if (!new_phase && fraction < 1 && now - last_drawn_ < kRedraw) return;
  last_drawn_ = now;
  drawn_ = true;
  std::string line = absl::StrFormat("%-8s", phase);
  if (!text.empty()) {
    int space = terminal_.width - DisplayWidth(line) - DisplayWidth(text) - 5;
    absl::StrAppend(&line, " ", Bar(fraction, std::clamp(space, 4, 40), terminal_.unicode), "  ",
                    text);
  }
  // One column short of the width: a full line would wrap on some terminals, and wrapped lines
  // cannot be erased.
  std::fputs(kEraseLine, out_);
  std::fputs(Truncated(line, terminal_.width - 1).c_str(), out_);
  std::fflush(out_);
}

}  // namespace distorch::ctl
