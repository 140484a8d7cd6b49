#include "lib/serving/device_queue.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "lib/base/retry_delay.h"

namespace distorch {

DeviceQueue::DeviceQueue(const std::string& name, const QueueLimits& limits)
    : name_(name), queue_(name, limits), thread_([this] { Run(); }) {}

DeviceQueue::~DeviceQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

absl::StatusOr<DeviceQueue::Place> DeviceQueue::Enter(const QueueClaim& claim) {
  absl::MutexLock lock(&mutex_);
  absl::Status room = queue_.CheckRoom(claim.client);
  // There is room again when the running request ends, at the earliest.
  if (!room.ok()) return RetryAfter(std::move(room), absl::Seconds(RunningSecondsLeft()));
  return queue_.Enter(claim);
}

void DeviceQueue::Post(Place place, double seconds_left, Job job, Told told) {
  std::vector<Notice> notices;
  {
    absl::MutexLock lock(&mutex_);
    queue_.SetSecondsLeft(place, seconds_left);
    queue_.SetReady(place, true);
    waiting_[place] = Waiting{std::move(job), std::move(told)};
    if (busy_) notices = Notices();
  }
  for (const Notice& notice : notices) notice.told(notice.progress);
}

bool DeviceQueue::Withdraw(Place place) {
  Waiting withdrawn;  // destroyed without the mutex
  absl::MutexLock lock(&mutex_);
  const auto found = waiting_.find(place);
  if (found == waiting_.end()) return false;
  withdrawn = std::move(found->second);
  waiting_.erase(found);
  queue_.SetReady(place, false);
  return true;
}

void DeviceQueue::Leave(Place place) {
  absl::MutexLock lock(&mutex_);
  queue_.Leave(place);
}

bool DeviceQueue::TryPost(Job& job) {
  absl::MutexLock lock(&mutex_);
  if (busy_ || extra_ != nullptr || queue_.HasReady()) return false;
  extra_ = std::move(job);
  return true;
}

absl::Duration DeviceQueue::PredictedWait(const QueueClaim& claim) const {
  absl::MutexLock lock(&mutex_);
  return absl::Seconds(RunningSecondsLeft() + queue_.SecondsAhead(claim));
}

int DeviceQueue::length() const {
  absl::MutexLock lock(&mutex_);
  return queue_.waiting();
}

double DeviceQueue::RunningSecondsLeft() const {
  if (!busy_) return 0;
  return std::max(0.0, queue_.RunningSeconds() - absl::ToDoubleSeconds(absl::Now() - started_));
}

std::vector<DeviceQueue::Notice> DeviceQueue::Notices() {
  std::vector<Notice> notices;
  const double running = RunningSecondsLeft();
  for (const FairQueue::Standing& standing : queue_.Standings()) {
    if (!standing.ready) continue;
    Waiting& waiting = waiting_.at(standing.place);
    if (waiting.told_position == standing.position || !waiting.told) continue;
    waiting.told_position = standing.position;
    notices.push_back({waiting.told, {standing.position, running + standing.seconds_ahead}});
  }
  return notices;
}

void DeviceQueue::Run() {
  constexpr size_t kMaxThreadName = 15;  // the kernel's limit
  pthread_setname_np(pthread_self(), name_.substr(0, kMaxThreadName).c_str());
  while (true) {
    Job job;
    std::vector<Notice> notices;
    {
      absl::MutexLock lock(&mutex_);
      busy_ = false;
      mutex_.Await(absl::Condition(this, &DeviceQueue::HasWorkOrStops));
      busy_ = true;
      started_ = absl::Now();
      if (extra_ != nullptr) {
        job = std::exchange(extra_, nullptr);
      } else if (const auto next = queue_.TakeNext()) {
        const auto found = waiting_.find(*next);
        job = std::move(found->second.job);
        waiting_.erase(found);
        notices = Notices();
      } else {
        return;
      }
    }
    for (const Notice& notice : notices) notice.told(notice.progress);
    job();
    job = nullptr;
    absl::MutexLock lock(&mutex_);
    queue_.EndRunning();
  }
}

}  // namespace distorch
