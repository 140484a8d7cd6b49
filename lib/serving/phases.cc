#include "lib/serving/phases.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>
#include <stop_token>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "lib/base/retry_delay.h"
#include "lib/base/status_macros.h"

namespace distorch {
namespace {

using Clock = std::chrono::steady_clock;

// Predictions are refused by only where they are far enough off the deadline to be right.
constexpr double kCertainly = 0.75;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

struct PhaseRunner::Request : PhasedRequest {
  explicit Request(PhasedRequest asked) : PhasedRequest(std::move(asked)) {}

  const DeviceId& device() const { return phases[current].device; }
  // What the phases from the current one on take of `device`, as far as that was measured.
  double SecondsLeft(const DeviceId& device) const {
    double seconds = 0;
    for (size_t i = current; i < phases.size(); ++i) {
      if (phases[i].device == device) seconds += phases[i].forecast.MeasuredSeconds();
    }
    return seconds;
  }
  bool Needs(const DeviceId& device) const {
    return std::any_of(phases.begin() + static_cast<std::ptrdiff_t>(current), phases.end(),
                       [&](const Phase& phase) { return phase.device == device; });
  }

  size_t current = 0;
  Finished done;
  PhaseSeconds seconds;
  Clock::time_point queued_at = Clock::now();
  std::map<DeviceId, DeviceQueue::Place> places;  // all that were taken
  std::set<DeviceId> left;                        // of these, those given up
  std::optional<std::stop_callback<std::function<void()>>> on_cancel;
};

PhaseRunner::PhaseRunner(const std::vector<DeviceId>& devices, const QueueLimits& limits,
                         Observer* observer)
    : observer_(observer), ender_("end", std::numeric_limits<int>::max()) {
  for (const DeviceId& device : devices)
    queues_[device] = std::make_unique<DeviceQueue>(device.ToString(), limits);
}

PhaseRunner::~PhaseRunner() {
  {
    absl::MutexLock lock(&mutex_);
    for (const CancelTokenPtr& cancel : active_)
      cancel->Cancel(absl::CancelledError("the server is shutting down"));
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return active_.empty(); };
    mutex_.Await(absl::Condition(&idle));
  }
  queues_.clear();  // joins while the mutex still exists
}

int PhaseRunner::queue_length(const DeviceId& device) const { return queues_.at(device)->length(); }

bool PhaseRunner::TryRun(const DeviceId& device, DeviceQueue::Job job) {
  return queues_.at(device)->TryPost(job);
}

absl::Status PhaseRunner::CheckDeadline(const Request& request,
                                        const std::map<DeviceId, QueueClaim>& claims) const {
  if (request.cancel->deadline() == absl::InfiniteFuture()) return absl::OkStatus();
  double own = 0, wait = 0;
  for (const Phase& phase : request.phases) {
    own += phase.forecast.MeasuredSeconds();
  }
  // While it waits for one device, the wait for another may pass, too.
  for (const auto& [device, claim] : claims)
    wait = std::max(wait, absl::ToDoubleSeconds(queues_.at(device)->PredictedWait(claim)));
  const double left = absl::ToDoubleSeconds(request.cancel->deadline() - absl::Now());
  if (left <= 0 || (own + wait) * kCertainly <= left) return absl::OkStatus();
  if (own * kCertainly > left) {
    return absl::DeadlineExceededError(absl::StrFormat(
        "the request would take about %.1f s, and its deadline is in %.1f s", own, left));
  }
  return RetryAfter(absl::ResourceExhaustedError(absl::StrFormat(
                        "the request would wait about %.1f s and take about %.1f s, and its "
                        "deadline is in %.1f s",
                        wait, own, left)),
                    absl::Seconds(wait));
}

absl::Status PhaseRunner::Admit(Request& request) {
  std::map<DeviceId, QueueClaim> claims;
  for (const Phase& phase : request.phases) {
    QueueClaim& claim = claims[phase.device];
    claim.client = request.cancel->client();
    claim.priority = request.priority;
    claim.weight += phase.forecast.seconds;
    claim.seconds += phase.forecast.MeasuredSeconds();
  }
  RETURN_IF_ERROR(CheckDeadline(request, claims));
  for (const auto& [device, claim] : claims) {
    const absl::StatusOr<DeviceQueue::Place> place = queues_.at(device)->Enter(claim);
    if (place.ok()) {
      request.places[device] = *place;
      continue;
    }
    for (const auto& [entered, taken] : request.places) queues_.at(entered)->Leave(taken);
    return place.status();
  }
  return absl::OkStatus();
}

void PhaseRunner::Run(PhasedRequest asked, Finished done) {
  auto request = std::make_shared<Request>(std::move(asked));
  if (const absl::Status admitted = Admit(*request); !admitted.ok()) {
    request->phases.clear();
    return done(admitted, {});
  }
  request->done = std::move(done);
  {
    absl::MutexLock lock(&mutex_);
    active_.insert(request->cancel);
  }
  request->on_cancel.emplace(request->cancel->stop_token(),
                             [this, weak = std::weak_ptr<Request>(request)] {
                               if (const auto cancelled = weak.lock()) Withdraw(cancelled);
                             });
  if (request->started) request->started("queue");
  Enqueue(request);
}

void PhaseRunner::Enqueue(const std::shared_ptr<Request>& request) {
  const DeviceId device = request->device();
  const CancelTokenPtr cancel = request->cancel;
  request->queued_at = Clock::now();
  queues_.at(device)->Post(
      request->places.at(device), request->SecondsLeft(device),
      [this, request] { RunCurrent(request); }, request->queued);
  // Who cancelled before the job was posted found nothing to take back.
  if (!cancel->Check().ok()) Withdraw(request);
}

void PhaseRunner::Withdraw(const std::shared_ptr<Request>& request) {
  for (const auto& [device, place] : request->places) {
    if (!queues_.at(device)->Withdraw(place)) continue;
    ender_.PostAdmitted([this, request] { Finish(*request, request->cancel->Check()); });
    return;
  }
}

void PhaseRunner::RunCurrent(const std::shared_ptr<Request>& request) {
  const Clock::time_point start = Clock::now();
  request->seconds["queue"] += Seconds(start - request->queued_at);
  Phase& phase = request->phases[request->current];
  absl::Status status = request->cancel->Check();
  if (status.ok()) {
    if (request->started) request->started(phase.name);
    status = phase.work();
    const double seconds = Seconds(Clock::now() - start);
    request->seconds[phase.name] += seconds;
    if (status.ok()) observer_->PhaseDone(phase.name, request->family, seconds);
  }
  const DeviceId device = phase.device;
  if (!status.ok() || ++request->current == request->phases.size()) {
    Finish(*request, status);
    return;
  }
  if (!request->Needs(device)) {
    queues_.at(device)->Leave(request->places.at(device));
    request->left.insert(device);
  }
  Enqueue(request);
}

void PhaseRunner::Finish(Request& request, const absl::Status& status) {
  request.on_cancel.reset();
  for (const auto& [device, place] : request.places) {
    if (!request.left.contains(device)) queues_.at(device)->Leave(place);
  }
  if (status.ok()) observer_->PhaseDone("queue", request.family, request.seconds["queue"]);
  // Drops the pins before the client hears of the end: it may unload at once.
  request.phases.clear();
  request.done(status, request.seconds);
  request.done = nullptr;
  absl::MutexLock lock(&mutex_);
  active_.erase(active_.find(request.cancel));
}

}  // namespace distorch
