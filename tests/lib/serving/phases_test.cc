// Requests in the devices' queues, with phases that wait for the test instead of computing.
#include "lib/serving/phases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "lib/base/retry_delay.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const DeviceId kGpu{"cuda", 0};
const DeviceId kCpu{"cpu", 0};

// What one request came to.
struct Outcome {
  absl::Notification ended;
  absl::Status status;

  const absl::Status& Wait() {
    ended.WaitForNotification();
    return status;
  }
};
using OutcomePtr = std::shared_ptr<Outcome>;

class PhasesTest : public ::testing::Test {
 protected:
  void Start(const QueueLimits& limits = {}) {
    runner_ = std::make_unique<PhaseRunner>(std::vector<DeviceId>{kGpu, kCpu}, limits, &observer_);
  }
  static Phase On(const DeviceId& device, absl::AnyInvocable<absl::Status()> work = nullptr,
                  PhaseForecast forecast = {}) {
    if (work == nullptr) work = [] { return absl::OkStatus(); };
    return {"work", device, std::move(work), forecast};
  }
  OutcomePtr Run(std::vector<Phase> phases, CancelTokenPtr cancel = std::make_shared<CancelToken>(),
                 int priority = 0, std::function<void(const QueueProgress&)> queued = nullptr) {
    auto outcome = std::make_shared<Outcome>();
    PhasedRequest request{"sd1",   priority,         std::move(phases), std::move(cancel),
                          nullptr, std::move(queued)};
    runner_->Run(std::move(request), [outcome](const absl::Status& status, const PhaseSeconds&) {
      outcome->status = status;
      outcome->ended.Notify();
    });
    return outcome;
  }
  OutcomePtr Run(Phase phase, CancelTokenPtr cancel = std::make_shared<CancelToken>(),
                 int priority = 0, std::function<void(const QueueProgress&)> queued = nullptr) {
    std::vector<Phase> phases;
    phases.push_back(std::move(phase));
    return Run(std::move(phases), std::move(cancel), priority, std::move(queued));
  }
  // Keeps `device` busy until Release.
  OutcomePtr Hold(const DeviceId& device, PhaseForecast forecast = {}) {
    absl::Notification running;
    OutcomePtr held = Run(On(
        device,
        [this, &running] {
          running.Notify();
          release_.WaitForNotification();
          return absl::OkStatus();
        },
        forecast));
    running.WaitForNotification();
    return held;
  }
  void Release() { release_.Notify(); }

  Observer observer_;
  absl::Notification release_;
  std::unique_ptr<PhaseRunner> runner_;
};

TEST_F(PhasesTest, RunsPhasesInOrderWhereTheyBelong) {
  Start();
  std::vector<std::string> ran;
  std::vector<std::thread::id> threads;
  std::vector<Phase> phases;
  for (const DeviceId& device : {kCpu, kGpu, kCpu}) {
    phases.push_back(On(device, [&, device] {
      ran.push_back(device.ToString());
      threads.push_back(std::this_thread::get_id());
      return absl::OkStatus();
    }));
  }
  EXPECT_TRUE(Run(std::move(phases))->Wait().ok());
  EXPECT_THAT(ran, ElementsAre("cpu", "cuda:0", "cpu"));
  EXPECT_EQ(threads[0], threads[2]);
  EXPECT_NE(threads[0], threads[1]);
}

TEST_F(PhasesTest, AFailedPhaseIsTheLast) {
  Start();
  std::vector<Phase> phases;
  phases.push_back(On(kCpu, [] { return absl::InternalError("broken"); }));
  phases.push_back(On(kGpu, [] {
    ADD_FAILURE() << "runs";
    return absl::OkStatus();
  }));
  EXPECT_EQ(Run(std::move(phases))->Wait(), absl::InternalError("broken"));
  EXPECT_EQ(runner_->queue_length(kGpu), 0);
}

TEST_F(PhasesTest, CancellingEndsAWaitAtOnceAndFreesThePlace) {
  Start({.waiting = 1});
  const OutcomePtr held = Hold(kGpu);
  auto pin = std::make_shared<int>(1);
  const auto cancel = std::make_shared<CancelToken>();
  const OutcomePtr waiting = Run(On(kGpu,
                                    [pin] {
                                      ADD_FAILURE() << "runs";
                                      return absl::OkStatus();
                                    }),
                                 cancel);
  EXPECT_EQ(Run(On(kGpu))->Wait().code(), absl::StatusCode::kResourceExhausted);
  cancel->Cancel(absl::AbortedError("unloaded"));
  EXPECT_EQ(waiting->Wait(), absl::AbortedError("unloaded"));
  EXPECT_EQ(pin.use_count(), 1);
  const OutcomePtr next = Run(On(kGpu));
  Release();
  EXPECT_TRUE(next->Wait().ok());
  EXPECT_TRUE(held->Wait().ok());
}

TEST_F(PhasesTest, WhatIsCancelledBeforeItWaitsEndsToo) {
  Start();
  const OutcomePtr held = Hold(kGpu);
  const auto cancel = std::make_shared<CancelToken>();
  cancel->Cancel(absl::CancelledError("gone"));
  EXPECT_EQ(Run(On(kGpu), cancel)->Wait(), absl::CancelledError("gone"));
  Release();
}

TEST_F(PhasesTest, AFullQueueAnywhereRefusesAtOnceAndSaysWhenToRetry) {
  Start({.waiting = 1});
  const OutcomePtr held = Hold(kGpu, {60, true});
  const OutcomePtr waiting = Run(On(kGpu));
  std::vector<Phase> phases;
  phases.push_back(On(kCpu));
  phases.push_back(On(kGpu));
  const OutcomePtr refused = Run(std::move(phases));
  EXPECT_THAT(refused->Wait().message(), HasSubstr("cuda:0: 1 requests are waiting"));
  EXPECT_GT(RetryDelayOf(refused->Wait()), absl::Seconds(1));
  EXPECT_EQ(runner_->queue_length(kCpu), 0);  // it left no place behind
  Release();
  EXPECT_TRUE(waiting->Wait().ok());
}

TEST_F(PhasesTest, ADeadlineThatCannotBeMetIsRefusedAtOnce) {
  Start();
  const OutcomePtr held = Hold(kGpu, {100, true});
  const auto within = [](absl::Duration time) {
    return std::make_shared<CancelToken>(absl::Now() + time);
  };
  // Not by an idle server: no use to try again.
  const absl::Status never = Run(On(kGpu, nullptr, {50, true}), within(absl::Seconds(20)))->Wait();
  EXPECT_EQ(never.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(RetryDelayOf(never), std::nullopt);
  // Not behind who runs.
  const absl::Status later = Run(On(kGpu, nullptr, {5, true}), within(absl::Seconds(20)))->Wait();
  EXPECT_EQ(later.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(RetryDelayOf(later), absl::Seconds(80));
  // What rests on no measurement refuses nothing; nor does what may be just in time.
  const OutcomePtr unknown = Run(On(kCpu, nullptr, {50, false}), within(absl::Seconds(20)));
  EXPECT_TRUE(unknown->Wait().ok());
  EXPECT_TRUE(Run(On(kCpu, nullptr, {22, true}), within(absl::Seconds(20)))->Wait().ok());
  Release();
}

TEST_F(PhasesTest, AGuessOfWhatRunsRefusesNobody) {
  Start();
  const OutcomePtr held = Hold(kGpu, {1000, false});
  const OutcomePtr waiting =
      Run(On(kGpu), std::make_shared<CancelToken>(absl::Now() + absl::Seconds(60)));
  Release();
  EXPECT_TRUE(waiting->Wait().ok()) << waiting->Wait();
}

TEST_F(PhasesTest, TellsThePositionAsItChanges) {
  Start();
  const OutcomePtr held = Hold(kGpu);
  std::vector<int> positions;  // told before the end, and by turns
  const OutcomePtr first = Run(On(kGpu));
  const OutcomePtr second =
      Run(On(kGpu), std::make_shared<CancelToken>(), 0,
          [&](const QueueProgress& queue) { positions.push_back(queue.position); });
  const OutcomePtr urgent = Run(On(kGpu), std::make_shared<CancelToken>(), 5);
  Release();
  EXPECT_TRUE(second->Wait().ok());
  EXPECT_THAT(positions, ElementsAre(2, 3, 2, 1));
}

TEST_F(PhasesTest, AnIdleDeviceHelpsAndABusyOneDoesNot) {
  Start();
  const OutcomePtr held = Hold(kGpu);
  EXPECT_FALSE(runner_->TryRun(kGpu, [] {}));
  absl::Notification helped;
  EXPECT_TRUE(runner_->TryRun(kCpu, [&] { helped.Notify(); }));
  helped.WaitForNotification();
  Release();
}

TEST_F(PhasesTest, EndsWhatWaitsWhenItGoes) {
  Start();
  const auto cancel = std::make_shared<CancelToken>();
  absl::Notification running;
  const OutcomePtr stuck = Run(On(kGpu,
                                  [&] {
                                    running.Notify();
                                    while (cancel->Check().ok()) std::this_thread::yield();
                                    return cancel->Check();
                                  }),
                               cancel);
  running.WaitForNotification();
  const OutcomePtr waiting = Run(On(kGpu));
  runner_.reset();
  EXPECT_EQ(stuck->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->Wait().code(), absl::StatusCode::kCancelled);
}

// Cancellations race with turns, deadlines and ends: every request ends once.
TEST_F(PhasesTest, ManyClientsComeAndGo) {
  Start({.waiting = 20});
  constexpr int kClients = 8, kRequests = 100;
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([this, c] {
      for (int i = 0; i < kRequests; ++i) {
        std::vector<Phase> phases;
        for (const DeviceId& device : {kCpu, kGpu, kCpu}) phases.push_back(On(device));
        const auto cancel =
            std::make_shared<CancelToken>(absl::InfiniteFuture(), std::to_string(c));
        const OutcomePtr outcome =
            Run(std::move(phases), cancel, i % 3, [](const QueueProgress&) {});
        if (i % 2 == 0) cancel->Cancel(absl::CancelledError("gone"));
        outcome->Wait();
        if (i % 2 == 0 && outcome->status.code() == absl::StatusCode::kCancelled) continue;
        EXPECT_TRUE(outcome->status.ok()) << outcome->status;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(runner_->queue_length(kGpu), 0);
  EXPECT_EQ(runner_->queue_length(kCpu), 0);
}

}  // namespace
}  // namespace distorch
