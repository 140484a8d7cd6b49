#include "lib/serving/executor.h"

#include <pthread.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace distorch {

Executor::Executor(std::string name, int queue_limit)
    : name_(std::move(name)), queue_limit_(queue_limit), thread_([this] { Run(); }) {}

Executor::~Executor() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

absl::Status Executor::Post(Job& job) {
  absl::MutexLock lock(&mutex_);
  if (static_cast<int>(jobs_.size()) >= queue_limit_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        name_, ": ", jobs_.size(), " requests are waiting, which is the limit (--queue_limit)"));
  }
  jobs_.push_back(std::move(job));
  return absl::OkStatus();
}

void Executor::PostAdmitted(Job job) {
  absl::MutexLock lock(&mutex_);
  jobs_.push_back(std::move(job));
}

void Executor::Run() {
  constexpr size_t kMaxThreadName = 15;  // the kernel's limit
  pthread_setname_np(pthread_self(), name_.substr(0, kMaxThreadName).c_str());
  while (true) {
    Job job;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Executor::HasWorkOrStops));
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace distorch
