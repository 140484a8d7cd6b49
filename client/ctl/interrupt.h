// Ctrl-C as a cancel of the call under way.
#ifndef CLIENT_CTL_INTERRUPT_H_
#define CLIENT_CTL_INTERRUPT_H_

#include <signal.h>

#include <atomic>
#include <thread>

#include "client/cpp/canceller.h"

namespace distorch::ctl {

// Takes SIGINT and SIGTERM from the whole process for as long as it lives: the first cancels
// through `canceller` (which must outlive it), a second ends the process at once. Construct it
// before any other thread starts, or the signal may reach one that does not expect it.
class Interrupt {
 public:
  explicit Interrupt(client::Canceller* canceller);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // The signal that came, 0 when none did.
  int signal() const { return signal_; }

 private:
  void Watch();

  client::Canceller* const canceller_;
  sigset_t signals_;
  std::atomic<int> signal_ = 0;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_INTERRUPT_H_
