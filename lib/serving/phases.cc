#include "lib/serving/phases.h"

#include <chrono>
#include <utility>

#include "lib/base/torch_status.h"

namespace distorch {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

struct PhaseRunner::Request {
  std::string family;
  std::vector<Phase> phases;
  size_t current = 0;
  CancelTokenPtr cancel;
  PhaseStarted started;
  Finished done;
  PhaseSeconds seconds;
  Clock::time_point queued_at;
};

PhaseRunner::PhaseRunner(const std::vector<DeviceId>& devices, int queue_limit, Observer* observer)
    : observer_(observer) {
  for (const DeviceId& device : devices) {
    executors_[device] = std::make_unique<Executor>(device.ToString(), queue_limit);
  }
}

PhaseRunner::~PhaseRunner() {
  {
    absl::MutexLock lock(&mutex_);
    for (const CancelTokenPtr& cancel : active_)
      cancel->Cancel(absl::CancelledError("the server is shutting down"));
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return active_.empty(); };
    mutex_.Await(absl::Condition(&idle));
  }
  executors_.clear();  // joins while the mutex still exists
}

int PhaseRunner::queue_length(const DeviceId& device) const {
  return executors_.at(device)->queue_length();
}

bool PhaseRunner::TryRun(const DeviceId& device, Executor::Job job) {
  return executors_.at(device)->TryPost(job);
}

void PhaseRunner::Run(std::string family, std::vector<Phase> phases, CancelTokenPtr cancel,
                      PhaseStarted started, Finished done) {
  auto request = std::make_shared<Request>();
  request->family = std::move(family);
  request->phases = std::move(phases);
  request->cancel = std::move(cancel);
  request->started = std::move(started);
  request->done = std::move(done);
  request->queued_at = Clock::now();
  {
    absl::MutexLock lock(&mutex_);
    active_.insert(request->cancel);
  }
  if (request->started) request->started("queue");
  Executor::Job job = [this, request] { RunCurrent(request); };
  const absl::Status admitted = executors_.at(request->phases.front().device)->Post(job);
  if (!admitted.ok()) Finish(*request, admitted);
}

void PhaseRunner::RunCurrent(std::shared_ptr<Request> request) {
  const Clock::time_point start = Clock::now();
  request->seconds["queue"] += Seconds(start - request->queued_at);
  Phase& phase = request->phases[request->current];
  absl::Status status = request->cancel->Check();
  if (status.ok()) {
    if (request->started) request->started(phase.name);
    status = RunTorch([&] { return phase.work(); });
    const double seconds = Seconds(Clock::now() - start);
    request->seconds[phase.name] += seconds;
    if (status.ok()) observer_->PhaseDone(phase.name, request->family, seconds);
  }
  if (!status.ok() || ++request->current == request->phases.size()) {
    Finish(*request, status);
    return;
  }
  request->queued_at = Clock::now();
  executors_.at(request->phases[request->current].device)->PostAdmitted([this, request] {
    RunCurrent(request);
  });
}

void PhaseRunner::Finish(Request& request, const absl::Status& status) {
  if (status.ok()) observer_->PhaseDone("queue", request.family, request.seconds["queue"]);
  request.phases
      .clear();  // drops the pins before the client hears of the end: it may unload at once
  request.done(status, request.seconds);
  request.done = nullptr;
  absl::MutexLock lock(&mutex_);
  active_.erase(active_.find(request.cancel));
}

}  // namespace distorch
