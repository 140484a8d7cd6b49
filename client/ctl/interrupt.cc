#include "client/ctl/interrupt.h"

#include <pthread.h>
#include <unistd.h>

namespace distorch::ctl {

Interrupt::Interrupt(client::Canceller* canceller) : canceller_(canceller) {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  thread_ = std::thread([this] { Watch(); });
}

Interrupt::~Interrupt() {
  stopping_ = true;
  pthread_kill(thread_.native_handle(), SIGTERM);
  thread_.join();
}

void Interrupt::Watch() {
  int signal = 0;
  while (sigwait(&signals_, &signal) == 0 && !stopping_) {
    if (signal_ != 0) _exit(128 + signal);
    signal_ = signal;
    canceller_->Cancel();
  }
}

}  // namespace distorch::ctl
