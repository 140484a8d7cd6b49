// What the queue adds to a request: admission with its forecast, places, the hand-over between
// threads.
#include <benchmark/benchmark.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "lib/serving/phases.h"

namespace distorch {
namespace {

PhasedRequest EmptyRequest(absl::AnyInvocable<absl::Status()> last) {
  const CancelTokenPtr cancel = std::make_shared<CancelToken>(absl::Now() + absl::Hours(1));
  PhasedRequest request{"sd1", 0, {}, cancel, nullptr, [](const QueueProgress&) {}};
  for (int i = 0; i < 3; ++i) {
    request.phases.push_back({"work", DeviceId{}, [] { return absl::OkStatus(); }, {0.001, true}});
  }
  if (last != nullptr) request.phases.back().work = std::move(last);
  return request;
}

// Three empty phases on an idle device, from Run to the end.
void BM_IdleDevice(benchmark::State& state) {
  Observer observer;
  PhaseRunner runner({DeviceId{}}, {}, &observer);
  for (auto _ : state) {
    absl::Notification ended;
    runner.Run(EmptyRequest(nullptr),
               [&](const absl::Status&, const PhaseSeconds&) { ended.Notify(); });
    ended.WaitForNotification();
  }
}
BENCHMARK(BM_IdleDevice)->UseRealTime();

// A request of three empty phases among as many that wait: all of them are admitted, told of every
// position, and run.
void BM_FullQueue(benchmark::State& state) {
  Observer observer;
  const auto waiting = static_cast<int>(state.range(0));
  PhaseRunner runner({DeviceId{}}, {.waiting = waiting + 1}, &observer);
  for (auto _ : state) {
    absl::Notification release;
    absl::BlockingCounter ended(waiting + 1);
    const auto done = [&](const absl::Status&, const PhaseSeconds&) { ended.DecrementCount(); };
    runner.Run(EmptyRequest([&] {
                 release.WaitForNotification();
                 return absl::OkStatus();
               }),
               done);
    for (int i = 0; i < waiting; ++i) runner.Run(EmptyRequest(nullptr), done);
    release.Notify();
    ended.Wait();
  }
  state.SetItemsProcessed(state.iterations() * (waiting + 1));
}
BENCHMARK(BM_FullQueue)->Arg(64)->Arg(512)->UseRealTime();

}  // namespace
}  // namespace distorch
