// Admission and learning alone, over simulated devices.
#include "lib/serving/activation_room.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "lib/device/simulated_device.h"

namespace distorch {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;
const DeviceId kCuda0{"cuda", 0}, kCuda1{"cuda", 1}, kCpu{};

at::Tensor Allocate(int64_t bytes, int index = 0) {
  return at::empty(
      {bytes}, at::TensorOptions(at::Device(at::kPrivateUse1, static_cast<c10::DeviceIndex>(index)))
                   .dtype(at::kByte));
}

class ActivationRoomTest : public testing::Test {
 protected:
  ActivationRoomTest() {
    auto devices = DeviceManager::Create({.simulate_devices = "cuda:0=16MiB,cuda:1=16MiB"});
    EXPECT_TRUE(devices.ok()) << devices.status();
    devices_ = *std::move(devices);
    ledger_ = std::make_unique<Ledger>(devices_->Memory(), [this](const DeviceId& device) {
      return devices_->AllocatedBytes(device);
    });
    std::vector<c10::Device> torch_devices;
    for (const DeviceId& device : devices_->devices())
      torch_devices.push_back(devices_->TorchDevice(device));
    meter_ = std::make_unique<TransferMeter>(devices_->devices());
    streamer_ = std::make_unique<Streamer>(StreamerOptions(), torch_devices, links_, meter_.get(),
                                           ledger_.get());
    room_maker_ = std::make_unique<RoomMaker>(*devices_, ledger_.get(), streamer_.get(), &registry_,
                                              /*evicts=*/true);
    room_ =
        std::make_unique<ActivationRoom>(*devices_, ledger_.get(), room_maker_.get(), &observer_);
  }
  ~ActivationRoomTest() override {
    for (const auto& [device, use] : ledger_->Use()) {
      EXPECT_EQ(use.activation_bytes, 0) << device.ToString();
    }
    EXPECT_EQ(GetSimulatedDeviceStats(0).allocated_bytes, 0);
  }

  static PhaseMemory Memory(ActivationNeeds counted, const std::string& model = "model") {
    PhaseMemory memory;
    memory.holder = model + " (sample)";
    memory.key.family = memory.key.phase = "sample";
    memory.key.model = model;
    memory.counted = std::move(counted);
    return memory;
  }
  absl::Status Run(const PhaseMemory& memory, absl::FunctionRef<absl::Status()> work) {
    return room_->Run(memory, cancel_, work);
  }
  int64_t Held(const DeviceId& device) { return ledger_->Use().at(device).activation_bytes; }

  const c10::InferenceMode no_autograd_;
  std::unique_ptr<DeviceManager> devices_;
  std::unique_ptr<Ledger> ledger_;
  const LinkTable links_;
  std::unique_ptr<TransferMeter> meter_;
  std::unique_ptr<Streamer> streamer_;
  Registry registry_;
  Observer observer_;
  std::unique_ptr<RoomMaker> room_maker_;
  std::unique_ptr<ActivationRoom> room_;
  CancelToken cancel_;
};

TEST_F(ActivationRoomTest, APhaseHoldsWhatItExpectsOnEachOfItsDevices) {
  const PhaseMemory memory = Memory({{kCuda0, {kMiB, 4 * kMiB}}, {kCuda1, {kMiB, 2 * kMiB}}});
  EXPECT_TRUE(Run(memory, [&] {
                EXPECT_EQ(Held(kCuda0), 4 * kMiB);
                EXPECT_EQ(Held(kCuda1), 2 * kMiB);
                EXPECT_EQ(ledger_->Check({{kCuda0, 13 * kMiB}}, {}).code(),
                          absl::StatusCode::kResourceExhausted);
                return absl::OkStatus();
              }).ok());
  EXPECT_EQ(Held(kCuda0), 0);
  EXPECT_EQ(Run(memory, [] { return absl::CancelledError("so"); }), absl::CancelledError("so"));
}

TEST_F(ActivationRoomTest, LearnsWhatARunTook) {
  const PhaseMemory memory = Memory({{kCuda0, {kMiB, 4 * kMiB}}, {kCuda1, {kMiB, 2 * kMiB}}});
  const at::Tensor weights = Allocate(5 * kMiB);
  EXPECT_TRUE(Run(memory, [] {
                const at::Tensor activations = Allocate(3 * kMiB), there = Allocate(kMiB / 2, 1);
                return absl::OkStatus();
              }).ok());
  const ActivationNeeds needs = room_->Estimate(memory);
  EXPECT_EQ(needs.at(kCuda0), (ActivationNeed{3 * kMiB, 3 * kMiB}));
  EXPECT_EQ(needs.at(kCuda1), (ActivationNeed{kMiB / 2, kMiB / 2}));
}

TEST_F(ActivationRoomTest, LearnsNothingWhereOthersRan) {
  const PhaseMemory memory = Memory({{kCuda0, {kMiB, 4 * kMiB}}, {kCuda1, {kMiB, 2 * kMiB}}});
  EXPECT_TRUE(Run(memory, [this] {
                const auto load = ledger_->Reserve("load", {{kCuda0, kMiB}}, {});
                const at::Tensor activations = Allocate(3 * kMiB), there = Allocate(kMiB, 1);
                return load.status();
              }).ok());
  EXPECT_EQ(room_->Estimate(memory).at(kCuda0), (ActivationNeed{kMiB, 4 * kMiB}));
  EXPECT_EQ(room_->Estimate(memory).at(kCuda1), (ActivationNeed{kMiB, kMiB}));
}

TEST_F(ActivationRoomTest, RefusesWhatCannotFitBeforeItStarts) {
  const auto weights = ledger_->Reserve("sd15 (unet)", {{kCuda0, 10 * kMiB}}, {});
  ASSERT_TRUE(weights.ok());
  Reservation held = *ledger_->Reserve("flux (unet)", {{kCuda0, 2 * kMiB}}, {});
  held.Commit({{kCuda0, 2 * kMiB}});
  Reservation unet = *ledger_->Reserve("flux (vae)", {{kCuda0, 0}}, {});
  const_cast<Reservation&>(*weights).Commit({{kCuda0, 10 * kMiB}});
  const absl::Status status = Run(Memory({{kCuda0, {5 * kMiB, 6 * kMiB}}}), [] {
    ADD_FAILURE() << "was run";
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("not enough memory to compute this"), HasSubstr("cuda:0"),
                    HasSubstr("5.00 MiB"), HasSubstr("4.00 MiB"),
                    HasSubstr("10.00 MiB sd15 (unet), 2.00 MiB flux (unet)")));
}

TEST_F(ActivationRoomTest, AnEstimateThatMayBeTooHighRefusesNothing) {
  const auto weights = ledger_->Reserve("weights", {{kCuda0, 10 * kMiB}}, {});
  const_cast<Reservation&>(*weights).Commit({{kCuda0, 10 * kMiB}});
  EXPECT_TRUE(Run(Memory({{kCuda0, {kMiB, 100 * kMiB}}, {kCuda1, {kMiB, 2 * kMiB}}}), [this] {
                EXPECT_EQ(Held(kCuda0), 6 * kMiB);
                EXPECT_EQ(Held(kCuda1), 2 * kMiB);
                return absl::OkStatus();
              }).ok());
}

TEST_F(ActivationRoomTest, WhatRanOutOfMemoryIsRefusedTheNextTime) {
  const PhaseMemory memory = Memory({{kCuda0, {kMiB, 4 * kMiB}}});
  int runs = 0;
  const auto work = [&] {
    ++runs;
    const at::Tensor first = Allocate(10 * kMiB), second = Allocate(10 * kMiB);
    return absl::OkStatus();
  };
  for (int i = 0; i < 3; ++i) {
    const absl::Status status = Run(memory, work);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(GetSimulatedDeviceStats(0).allocated_bytes, 0);
  }
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(room_->Estimate(memory).at(kCuda0).at_least, 20 * kMiB);
}

TEST_F(ActivationRoomTest, WaitsForAPhaseThatWillGiveBack) {
  absl::Notification first_runs, first_may_end;
  std::thread first([&] {
    const CancelToken cancel;
    EXPECT_TRUE(room_
                    ->Run(Memory({{kCuda0, {kMiB, 10 * kMiB}}}, "first"), cancel,
                          [&] {
                            first_runs.Notify();
                            first_may_end.WaitForNotification();
                            return absl::OkStatus();
                          })
                    .ok());
  });
  first_runs.WaitForNotification();
  absl::Notification second_began;
  std::thread second([&] {
    const CancelToken cancel;
    EXPECT_TRUE(room_
                    ->Run(Memory({{kCuda0, {kMiB, 10 * kMiB}}}, "second"), cancel,
                          [&] {
                            second_began.Notify();
                            EXPECT_EQ(Held(kCuda0), 10 * kMiB);
                            return absl::OkStatus();
                          })
                    .ok());
  });
  // What fits beside the first does not wait.
  EXPECT_TRUE(
      Run(Memory({{kCuda0, {kMiB, 6 * kMiB}}}, "third"), [] { return absl::OkStatus(); }).ok());
  EXPECT_FALSE(second_began.WaitForNotificationWithTimeout(absl::Milliseconds(20)));
  first_may_end.Notify();
  first.join();
  second.join();
}

TEST_F(ActivationRoomTest, AWaitEndsWhenTheRequestIsCancelledOrItsDeadlinePasses) {
  const auto load = ledger_->Reserve("load", {{kCuda0, 10 * kMiB}}, {});
  const PhaseMemory memory = Memory({{kCuda0, {kMiB, 10 * kMiB}}});
  const auto never = [] {
    ADD_FAILURE() << "was run";
    return absl::OkStatus();
  };
  CancelToken cancel;
  std::thread canceller([&] { cancel.Cancel(absl::AbortedError("unloaded")); });
  EXPECT_EQ(room_->Run(memory, cancel, never).code(), absl::StatusCode::kAborted);
  canceller.join();
  const CancelToken late(absl::Now() + absl::Milliseconds(5));
  EXPECT_EQ(room_->Run(memory, late, never).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ActivationRoomTest, ALoadThatEndsLetsAPhaseThatWaitedHaveWhatIsLeft) {
  auto load = ledger_->Reserve("load", {{kCuda0, 10 * kMiB}}, {});
  std::thread loader([&] { load->Commit({{kCuda0, 10 * kMiB}}); });
  EXPECT_TRUE(Run(Memory({{kCuda0, {kMiB, 10 * kMiB}}}), [this] {
                EXPECT_EQ(Held(kCuda0), 6 * kMiB);
                return absl::OkStatus();
              }).ok());
  loader.join();
}

TEST_F(ActivationRoomTest, APhaseOfNoDeviceRuns) {
  EXPECT_TRUE(Run(PhaseMemory(), [] { return absl::OkStatus(); }).ok());
}

}  // namespace
}  // namespace distorch
