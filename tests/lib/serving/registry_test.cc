// The registry's state machine alone: components without weights stand for loaded ones.
#include "lib/serving/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

CancelTokenPtr NewToken() { return std::make_shared<CancelToken>(); }

// Keeps the accounts of every component below.
Ledger& Accounts() {
  static Ledger* const ledger = new Ledger({{DeviceId{"cuda", 0}, int64_t{1} << 20}});
  return *ledger;
}

std::shared_ptr<LoadedComponent> NewComponent(const std::string& handle, int64_t bytes,
                                              std::shared_ptr<const LoadedComponent> base = {}) {
  static const NamedTensors* const kNoTensors = new NamedTensors;
  auto component = std::make_shared<LoadedComponent>();
  component->base_handle = handle;
  component->ckpt_name = "a.safetensors";
  component->family = "sd1";
  component->base = std::move(base);
  component->component = std::make_unique<nn::Component>(kNoTensors);
  DeviceBytes device;
  device.device = "cuda:0";
  device.planned_bytes = device.measured_bytes = bytes;
  auto holding = std::make_shared<Holding>();
  holding->devices = {device};
  const BytesByDevice need = {{DeviceId{"cuda", 0}, bytes}};
  auto reservation = Accounts().Reserve(handle, need, {{DeviceId{"cuda", 0}, int64_t{1} << 20}});
  EXPECT_TRUE(reservation.ok()) << reservation.status();
  holding->reservation = *std::move(reservation);
  holding->reservation.Commit(need);
  component->holding = std::move(holding);
  return component;
}

class RegistryTest : public ::testing::Test {
 protected:
  CancelTokenPtr Begin(const std::string& handle) {
    CancelTokenPtr cancel = NewToken();
    registry_.BeginLoading(handle, ComponentKind::kModel, "a.safetensors", "sd1", cancel);
    return cancel;
  }
  void Load(const std::string& handle, int64_t bytes = 100) {
    Begin(handle);
    registry_.Publish(NewComponent(handle, bytes));
  }
  absl::StatusOr<Pin> Acquire(const std::string& handle, CancelTokenPtr cancel = NewToken()) {
    return registry_.Acquire("model", handle, ComponentKind::kModel, std::move(cancel));
  }
  static int64_t HeldBytes() { return Accounts().Use()[DeviceId{"cuda", 0}].weights_bytes; }
  // The state ListModels tells; "" for a handle that is not listed.
  std::string State(const std::string& handle) {
    for (const ModelInfo& info : registry_.List()) {
      if (info.handle == handle) return info.state;
    }
    return "";
  }

  absl::Time now_ = absl::UnixEpoch();
  Registry registry_{nullptr, [this] { return now_; }};
};

TEST_F(RegistryTest, LoadingIsListedAndCannotBeUsed) {
  Begin("model-a");
  EXPECT_EQ(State("model-a"), "LOADING");
  EXPECT_EQ(Acquire("model-a").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry_.FindReady("model-a"), nullptr);
  registry_.Publish(NewComponent("model-a", 100));
  EXPECT_EQ(State("model-a"), "READY");
  EXPECT_TRUE(Acquire("model-a").ok());
}

TEST_F(RegistryTest, AnAbandonedLoadLeavesNothing) {
  Begin("model-a");
  registry_.Abandon("model-a");
  EXPECT_EQ(State("model-a"), "");
  EXPECT_EQ(Acquire("model-a").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RegistryTest, AnotherKindOfHandleNamesTheField) {
  Load("model-a");
  const absl::Status status =
      registry_.Acquire("vae", "model-a", ComponentKind::kVae, NewToken()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("vae: "));
}

TEST_F(RegistryTest, CloseReceiptCountsWhatWasFreedAndTheHandleIsStale) {
  Load("model-a", 300);
  auto receipt = registry_.Close({"model-a"}, false);
  ASSERT_TRUE(receipt.ok()) << receipt.status();
  EXPECT_EQ(receipt->handles_closed, 1);
  EXPECT_THAT(receipt->freed_bytes, ElementsAre(Pair("cuda:0", 300)));
  EXPECT_EQ(Acquire("model-a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry_.Close({"model-a"}, false).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RegistryTest, ClosingIsAllOrNothing) {
  Load("model-a");
  EXPECT_EQ(registry_.Close({"model-a", "model-b"}, false).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(State("model-a"), "READY");
}

TEST_F(RegistryTest, InUseIsRefusedWithoutForce) {
  Load("model-a");
  auto pin = Acquire("model-a");
  ASSERT_TRUE(pin.ok());
  EXPECT_EQ(registry_.Close({"model-a"}, false).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry_.CloseAll(false).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry_.EvictIdle({}), 0);
  EXPECT_EQ(State("model-a"), "READY");
}

TEST_F(RegistryTest, ForceAbortsUsersAndWaitsForTheirPins) {
  Load("model-a");
  const CancelTokenPtr cancel = NewToken();
  auto pin = std::make_unique<Pin>(*Acquire("model-a", cancel));
  absl::Notification closed;
  std::thread closer([&] {
    EXPECT_TRUE(registry_.Close({"model-a"}, true).ok());
    closed.Notify();
  });
  while (cancel->Check().ok()) std::this_thread::yield();
  EXPECT_EQ(cancel->Check().code(), absl::StatusCode::kAborted);
  EXPECT_FALSE(closed.HasBeenNotified());
  EXPECT_EQ(State("model-a"), "UNLOADING");
  EXPECT_EQ(Acquire("model-a").status().code(), absl::StatusCode::kNotFound);
  pin.reset();
  closer.join();
  EXPECT_EQ(State("model-a"), "");
}

TEST_F(RegistryTest, ForceCancelsALoadThatThenGoes) {
  const CancelTokenPtr load = Begin("model-a");
  EXPECT_EQ(registry_.Close({"model-a"}, false).status().code(),
            absl::StatusCode::kFailedPrecondition);
  std::thread closer([&] { EXPECT_TRUE(registry_.Close({"model-a"}, true).ok()); });
  while (load->Check().ok()) std::this_thread::yield();
  registry_.Abandon("model-a");
  closer.join();
  EXPECT_EQ(State("model-a"), "");
}

TEST_F(RegistryTest, LoadingAgainWaitsUntilTheUnloadingEnds) {
  Load("model-a");
  const CancelTokenPtr cancel = NewToken();
  auto pin = std::make_unique<Pin>(*Acquire("model-a", cancel));
  std::thread closer([&] { EXPECT_TRUE(registry_.Close({"model-a"}, true).ok()); });
  while (cancel->Check().ok()) std::this_thread::yield();
  absl::Notification began;
  std::thread loader([&] {
    Begin("model-a");
    began.Notify();
  });
  EXPECT_FALSE(began.HasBeenNotified());
  pin.reset();
  closer.join();
  loader.join();
  EXPECT_EQ(State("model-a"), "LOADING");
}

TEST_F(RegistryTest, SharedWeightsGoWithTheLastHandle) {
  Load("model-a", 300);
  {
    auto pin = Acquire("model-a");
    ASSERT_TRUE(pin.ok());
    ASSERT_TRUE(registry_
                    .Derive(*pin, "model-b", NewComponent("model-b", 20, pin->component()),
                            pin->stop_at_layer(), {"a.safetensors"})
                    .ok());
  }
  EXPECT_THAT(registry_.IdleBytes({"model-b"}), ::testing::IsEmpty());
  auto first = registry_.Close({"model-a"}, false);
  ASSERT_TRUE(first.ok());
  EXPECT_THAT(first->freed_bytes, ::testing::IsEmpty());  // model-b needs them still
  auto last = registry_.Close({"model-b"}, false);
  ASSERT_TRUE(last.ok());
  EXPECT_THAT(last->freed_bytes, ElementsAre(Pair("cuda:0", 320)));
}

TEST_F(RegistryTest, EvictIdleStoresAllButWhatIsNamedAndWhatIsUsed) {
  Load("model-a", 1);
  Load("model-b", 2);
  Load("model-c", 4);
  auto pin = Acquire("model-b");
  ASSERT_TRUE(pin.ok());
  EXPECT_THAT(registry_.IdleBytes({"model-a"}), ElementsAre(Pair(::testing::_, 4)));
  registry_.SetLease("model-c", absl::Hours(1));
  const int64_t before = HeldBytes();
  EXPECT_EQ(registry_.EvictIdle({"model-a"}), 1);
  EXPECT_EQ(State("model-a"), "READY");
  EXPECT_EQ(State("model-b"), "READY");
  EXPECT_EQ(State("model-c"), "STORED");
  EXPECT_EQ(before - HeldBytes(), 4);
  EXPECT_EQ(registry_.EvictIdle({"model-a"}), 0);
  ASSERT_EQ(registry_.StoredAmong({"model-c"}).size(), 1u);
  Load("model-c", 4);
  EXPECT_TRUE(Acquire("model-c").ok());
}

TEST_F(RegistryTest, LeasesEndIdleHandlesOnlyAndAreRenewedByUse) {
  const absl::Time start = now_;
  Load("model-a");
  Load("model-b");
  registry_.SetLease("model-a", absl::Seconds(10));
  registry_.SetLease("model-b", absl::Seconds(20));
  EXPECT_EQ(registry_.CloseExpired(now_), start + absl::Seconds(10));
  {
    auto pin = Acquire("model-a");
    ASSERT_TRUE(pin.ok());
    now_ = start + absl::Seconds(15);
    registry_.CloseExpired(now_);
    EXPECT_EQ(State("model-a"), "READY");  // in use
  }
  EXPECT_EQ(registry_.CloseExpired(now_), start + absl::Seconds(20));
  EXPECT_EQ(State("model-a"), "READY");  // until 10 s after that
  EXPECT_EQ(registry_.CloseExpired(start + absl::Seconds(22)), start + absl::Seconds(25));
  EXPECT_EQ(State("model-b"), "");
  EXPECT_EQ(registry_.CloseExpired(start + absl::Seconds(25)), absl::InfiniteFuture());
  EXPECT_EQ(State("model-a"), "");
}

TEST_F(RegistryTest, DamagedWeightsAreStoredOnceTheirRequestsHaveEnded) {
  const TempFolder folder;
  const std::string path = folder.File("a.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, {{"weight", DType::kF32, {4}}}).ok());
  const auto file = CheckpointFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto load = [&](const std::string& handle, const std::string& device) {
    Begin(handle);
    auto component = NewComponent(handle, 1);
    component->file = *file;
    auto holding = std::make_shared<Holding>();
    holding->devices = {{device, 1, 1}};
    component->holding = std::move(holding);
    registry_.Publish(std::move(component));
  };
  load("model-disk", "disk");
  load("model-memory", "cuda:0");
  const CancelTokenPtr cancel = NewToken();
  auto pin = std::make_unique<Pin>(*Acquire("model-disk", cancel));
  ASSERT_TRUE(registry_
                  .Derive(*pin, "model-adapted", NewComponent("model-adapted", 1, pin->component()),
                          pin->stop_at_layer(), {"a.safetensors"})
                  .ok());
  registry_.EvictDamaged("model-disk");
  EXPECT_EQ(State("model-disk"), "READY");

  std::filesystem::last_write_time(
      path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
  absl::Notification evicted;
  std::thread evictor([&] {
    registry_.EvictDamaged("model-memory");
    registry_.EvictDamaged("model-disk");
    evicted.Notify();
  });
  while (cancel->Check().ok()) std::this_thread::yield();
  EXPECT_EQ(cancel->Check().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(evicted.HasBeenNotified());
  pin.reset();
  evictor.join();
  EXPECT_EQ(State("model-disk"), "STORED");
  EXPECT_EQ(State("model-adapted"), "STORED");
  EXPECT_EQ(State("model-memory"), "READY");  // it reads nothing any more
}

TEST_F(RegistryTest, WhatARequestMakesForItselfCountsAsItsHandles) {
  Load("model-a", 300);
  EXPECT_THAT(registry_.List().front().unshared_bytes, ElementsAre(Pair("cuda:0", 300)));
  {
    auto pin = Acquire("model-a");
    ASSERT_TRUE(pin.ok());
    pin->Use(NewComponent("model-own", 20, pin->component()));
    EXPECT_EQ((*pin)->base_handle, "model-own");
    const std::vector<ModelInfo> listed = registry_.List();
    ASSERT_EQ(listed.size(), 1u);
    EXPECT_THAT(listed[0].unshared_bytes, ElementsAre(Pair("cuda:0", 320)));
  }
  EXPECT_THAT(registry_.List().front().unshared_bytes, ElementsAre(Pair("cuda:0", 300)));
  EXPECT_EQ(HeldBytes(), 300);
}

TEST_F(RegistryTest, WhatIsHeldIsNotEvicted) {
  Load("model-a");
  Load("model-b");
  {
    const auto held = registry_.Hold({"model-a", "model-none"});
    ASSERT_TRUE(held.has_value());
    EXPECT_EQ(registry_.EvictIdle({}), 1);
    EXPECT_EQ(State("model-a"), "READY");
    EXPECT_FALSE(registry_.Hold({"model-a", "model-b"}).has_value());
    EXPECT_EQ(registry_.List().front().in_use, 0);
  }
  EXPECT_EQ(registry_.EvictIdle({}), 1);
  Load("model-a");
  const auto held = registry_.Hold({"model-a"});
  EXPECT_TRUE(registry_.Close({"model-a"}, false).ok());  // that it does not keep
}

TEST_F(RegistryTest, LeasesOfWhatWasEvictedGoOn) {
  const absl::Time start = now_;
  Load("model-a");
  Load("model-b");
  registry_.SetLease("model-a", absl::Seconds(10));
  EXPECT_EQ(registry_.EvictIdle({}), 2);
  EXPECT_EQ(registry_.CloseExpired(start + absl::Seconds(9)), start + absl::Seconds(10));
  EXPECT_EQ(registry_.CloseExpired(start + absl::Seconds(10)), absl::InfiniteFuture());
  EXPECT_EQ(State("model-a"), "");
  EXPECT_EQ(State("model-b"), "STORED");
}

TEST_F(RegistryTest, EvictsWhatWasUsedLeastRecentlyAndOnlyWhatHelps) {
  for (const auto& [handle, bytes] :
       {std::pair{"model-a", 300}, std::pair{"model-b", 10}, std::pair{"model-c", 200},
        std::pair{"model-d", 400}, std::pair{"model-e", 500}}) {
    now_ += absl::Seconds(1);
    Load(handle, bytes);
  }
  registry_.SetLease("model-d", absl::Hours(1));
  const auto pin = Acquire("model-e");
  now_ += absl::Seconds(1);
  Acquire("model-a").IgnoreError();  // b and c are older now
  const DeviceId device{"cuda", 0};
  // What is leased or in use does not count.
  EXPECT_EQ(registry_.Evict({{device, 511}}, {}), 0);
  EXPECT_EQ(registry_.Evict({{device, 1}}, {"model-b", "model-c", "model-a"}), 0);
  const int64_t before = HeldBytes();
  EXPECT_EQ(registry_.Evict({{device, 100}}, {}), 1);
  EXPECT_EQ(before - HeldBytes(), 200);
  EXPECT_EQ(State("model-b"), "READY");  // 10 bytes would not have made a difference
  EXPECT_EQ(State("model-c"), "STORED");
  EXPECT_EQ(State("model-a"), "READY");
}

class StoredRegistryTest : public RegistryTest {
 protected:
  StoredHandle Recipe(const std::string& handle) {
    StoredHandle stored;
    stored.handle = stored.root = stored.base = handle;
    stored.kind = "model";
    stored.family = "sd1";
    stored.load.ckpt_name = "a.safetensors";
    return stored;
  }
};

TEST_F(StoredRegistryTest, StoredHandlesAreListedAndLoadedBeforeTheyAreUsed) {
  registry_.AddStored(Recipe("model-a"));
  EXPECT_EQ(State("model-a"), "STORED");
  EXPECT_EQ(Acquire("model-a").status().code(), absl::StatusCode::kUnavailable);
  ASSERT_EQ(registry_.StoredAmong({"model-a", "model-b"}).size(), 1u);
  Begin("model-a");
  EXPECT_EQ(State("model-a"), "LOADING");
  EXPECT_EQ(registry_.StoredAmong({"model-a"}).size(), 1u);  // to be waited for
  registry_.Abandon("model-a");
  EXPECT_EQ(State("model-a"), "STORED");  // the next may have more luck
  Load("model-a");
  EXPECT_EQ(State("model-a"), "READY");
  EXPECT_THAT(registry_.StoredAmong({"model-a"}), ::testing::IsEmpty());
  registry_.AddStored(Recipe("model-a"));
  EXPECT_EQ(State("model-a"), "READY");
}

TEST_F(StoredRegistryTest, StoredHandlesCanBeClosed) {
  registry_.AddStored(Recipe("model-a"));
  registry_.AddStored(Recipe("model-b"));
  const auto receipt = registry_.Close({"model-a"}, false);
  ASSERT_TRUE(receipt.ok());
  EXPECT_EQ(receipt->handles_closed, 1);
  EXPECT_THAT(receipt->freed_bytes, ::testing::IsEmpty());
  EXPECT_EQ(registry_.CloseAll(false)->handles_closed, 1);
  EXPECT_THAT(registry_.List(), ::testing::IsEmpty());
}

TEST_F(RegistryTest, AMovedPinIsReleasedOnce) {
  Load("model-a");
  auto acquired = Acquire("model-a");
  ASSERT_TRUE(acquired.ok());
  {
    Pin first = *std::move(acquired);
    Pin second = std::move(first);
    EXPECT_EQ(registry_.List().front().in_use, 1);
  }
  EXPECT_EQ(registry_.List().front().in_use, 0);
}

}  // namespace
}  // namespace distorch
