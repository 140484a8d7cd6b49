#include "lib/distorch/ledger.h"

#include <atomic>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace distorch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kGiB = int64_t{1} << 30;
const DeviceId kCpu{"cpu", 0}, kCuda0{"cuda", 0}, kCuda1{"cuda", 1};

class LedgerTest : public testing::Test {
 protected:
  LedgerTest() : ledger_({{kCuda0, 8 * kGiB}, {kCuda1, 12 * kGiB}, {kCpu, 64 * kGiB}}) {}

  Reservation MustReserve(std::string holder, const BytesByDevice& need,
                          const BytesByDevice& free_now = {}) {
    auto reservation = ledger_.Reserve(std::move(holder), need, free_now);
    EXPECT_TRUE(reservation.ok()) << reservation.status();
    return reservation.ok() ? *std::move(reservation) : Reservation();
  }
  int64_t Reserved(const DeviceId& device) { return ledger_.Use().at(device).reserved_bytes; }
  int64_t Weights(const DeviceId& device) { return ledger_.Use().at(device).weights_bytes; }

  Ledger ledger_;
};

TEST_F(LedgerTest, ReservesCommitsAndGivesBack) {
  {
    Reservation reservation = MustReserve("a", {{kCuda0, 3 * kGiB}, {kCpu, kGiB}});
    EXPECT_EQ(Reserved(kCuda0), 3 * kGiB);
    EXPECT_EQ(Reserved(kCpu), kGiB);
    EXPECT_EQ(Reserved(kCuda1), 0);
    EXPECT_EQ(reservation.bytes(), (BytesByDevice{{kCuda0, 3 * kGiB}, {kCpu, kGiB}}));

    reservation.Commit({{kCuda0, 2 * kGiB}});
    EXPECT_EQ(Reserved(kCuda0), 0);
    EXPECT_EQ(Weights(kCuda0), 2 * kGiB);
    EXPECT_EQ(reservation.bytes(), (BytesByDevice{{kCuda0, 2 * kGiB}}));
  }
  EXPECT_EQ(Weights(kCuda0), 0);
}

TEST_F(LedgerTest, ReleaseIsFinalAndMovesCarryTheHold) {
  Reservation first = MustReserve("a", {{kCuda0, 3 * kGiB}});
  Reservation second = std::move(first);
  first.Release();  // NOLINT(bugprone-use-after-move): moved-from ones do nothing
  EXPECT_TRUE(first.bytes().empty());
  EXPECT_EQ(Reserved(kCuda0), 3 * kGiB);

  second = MustReserve("b", {{kCuda0, kGiB}});  // lets go of "a"
  EXPECT_EQ(Reserved(kCuda0), kGiB);
  second.Release();
  second.Release();
  second.Commit({{kCuda0, kGiB}});
  EXPECT_EQ(Reserved(kCuda0), 0);
  EXPECT_EQ(Weights(kCuda0), 0);
  EXPECT_TRUE(second.bytes().empty());
}

TEST_F(LedgerTest, AllOrNothing) {
  EXPECT_FALSE(ledger_.Reserve("a", {{kCuda0, kGiB}, {kCuda1, 13 * kGiB}}, {}).ok());
  EXPECT_EQ(Reserved(kCuda0), 0);
  EXPECT_EQ(Reserved(kCuda1), 0);
}

TEST_F(LedgerTest, ReservedBytesAreNotForOthers) {
  Reservation loading = MustReserve("a", {{kCuda0, 6 * kGiB}}, {{kCuda0, 8 * kGiB}});
  EXPECT_TRUE(ledger_.Check({{kCuda0, 2 * kGiB}}, {{kCuda0, 8 * kGiB}}).ok());
  EXPECT_FALSE(ledger_.Check({{kCuda0, 2 * kGiB + 1}}, {{kCuda0, 8 * kGiB}}).ok());

  // Once committed, what the device reports as free lacks them already.
  loading.Commit({{kCuda0, 6 * kGiB}});
  EXPECT_TRUE(ledger_.Check({{kCuda0, 2 * kGiB}}, {{kCuda0, 2 * kGiB}}).ok());
}

TEST_F(LedgerTest, OtherProcessesMemoryCounts) {
  EXPECT_TRUE(ledger_.Check({{kCuda0, 8 * kGiB}}, {{kCuda0, 8 * kGiB}}).ok());
  EXPECT_FALSE(ledger_.Check({{kCuda0, 8 * kGiB}}, {{kCuda0, 8 * kGiB - 1}}).ok());
}

TEST_F(LedgerTest, NeverPromisesMoreThanADeviceMayHold) {
  // A device that reports too much free (the CPU's cache can be dropped) does not lift its limit.
  Reservation held = MustReserve("a", {{kCuda0, 5 * kGiB}});
  held.Commit(held.bytes());
  EXPECT_FALSE(ledger_.Check({{kCuda0, 4 * kGiB}}, {{kCuda0, 100 * kGiB}}).ok());
  EXPECT_TRUE(ledger_.Check({{kCuda0, 3 * kGiB}}, {{kCuda0, 100 * kGiB}}).ok());
}

TEST_F(LedgerTest, ActivationsAreHeldUntilTheyAreGivenBack) {
  auto phase = ledger_.Reserve("sd15 (sample)", {{kCuda0, 3 * kGiB}}, {{kCuda0, 8 * kGiB}},
                               Ledger::Kind::kActivations);
  ASSERT_TRUE(phase.ok()) << phase.status();
  EXPECT_EQ(ledger_.Use().at(kCuda0).activation_bytes, 3 * kGiB);
  EXPECT_EQ(Reserved(kCuda0), 0);
  EXPECT_EQ(Weights(kCuda0), 0);
  const absl::Status status = ledger_.Check({{kCuda0, 5 * kGiB + 1}}, {{kCuda0, 8 * kGiB}});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("3.00 GiB sd15 (sample)"));
  EXPECT_TRUE(ledger_.Check({{kCuda0, 5 * kGiB}}, {{kCuda0, 8 * kGiB}}).ok());
  // Where nobody tells, they are taken to be allocated.
  EXPECT_TRUE(ledger_.Check({{kCuda0, 5 * kGiB}}, {{kCuda0, 5 * kGiB}}).ok());
  phase->Release();
  EXPECT_EQ(ledger_.Use().at(kCuda0).activation_bytes, 0);
}

TEST(LedgerOfCountedDevicesTest, WhatIsPromisedAndAllocatedCountsOnce) {
  int64_t allocated = 0;
  Ledger ledger({{kCuda0, 8 * kGiB}}, [&](const DeviceId&) { return allocated; });
  auto weights = ledger.Reserve("a", {{kCuda0, 2 * kGiB}}, {});
  auto phase = ledger.Reserve("b", {{kCuda0, 3 * kGiB}}, {}, Ledger::Kind::kActivations);
  ASSERT_TRUE(weights.ok() && phase.ok());
  // Another program has one GiB all the time; the load and the phase allocate bit by bit.
  const auto expect_three_left_but_one = [&] {
    const BytesByDevice free_now = {{kCuda0, 7 * kGiB - allocated}};
    EXPECT_TRUE(ledger.Check({{kCuda0, 2 * kGiB}}, free_now).ok()) << allocated;
    EXPECT_FALSE(ledger.Check({{kCuda0, 2 * kGiB + 1}}, free_now).ok()) << allocated;
  };
  for (allocated = 0; allocated <= 5 * kGiB; allocated += kGiB) expect_three_left_but_one();
  weights->Commit({{kCuda0, 2 * kGiB}});
  for (allocated = 2 * kGiB; allocated <= 5 * kGiB; allocated += kGiB) expect_three_left_but_one();
  // What nobody has promised is gone all the same.
  allocated = 6 * kGiB;
  EXPECT_FALSE(ledger.Check({{kCuda0, kGiB + 1}}, {{kCuda0, kGiB}}).ok());
}

TEST_F(LedgerTest, CountsChangesByDevice) {
  const uint64_t all = ledger_.changes(), on_0 = ledger_.changes_on(kCuda0);
  EXPECT_FALSE(ledger_.Reserve("a", {{kCuda0, 9 * kGiB}}, {}).ok());
  EXPECT_EQ(ledger_.changes(), all);
  Reservation reservation = MustReserve("a", {{kCuda0, kGiB}, {kCuda1, 0}});
  EXPECT_GT(ledger_.changes(), all);
  const uint64_t reserved = ledger_.changes_on(kCuda0);
  EXPECT_GT(reserved, on_0);
  EXPECT_EQ(ledger_.changes_on(kCuda1), 0u);
  reservation.Commit({{kCuda0, kGiB}});
  const uint64_t committed = ledger_.changes_on(kCuda0);
  EXPECT_GT(committed, reserved);
  reservation.Release();
  const uint64_t released = ledger_.changes_on(kCuda0);
  EXPECT_GT(released, committed);
  reservation.Release();
  EXPECT_EQ(ledger_.changes_on(kCuda0), released);
}

TEST_F(LedgerTest, AwaitsAChangeAStopOrADeadline) {
  std::stop_source stop;
  ledger_.AwaitChange(ledger_.changes() + 1, absl::InfiniteFuture(), stop.get_token());
  ledger_.AwaitChange(ledger_.changes(), absl::Now() + absl::Milliseconds(5), stop.get_token());

  Reservation reservation = MustReserve("a", {{kCuda0, kGiB}});
  const uint64_t seen = ledger_.changes();
  std::thread releaser([&] { reservation.Release(); });
  ledger_.AwaitChange(seen, absl::InfiniteFuture(), stop.get_token());
  releaser.join();
  EXPECT_NE(ledger_.changes(), seen);

  const uint64_t now = ledger_.changes();
  std::thread stopper([&] { stop.request_stop(); });
  ledger_.AwaitChange(now, absl::InfiniteFuture(), stop.get_token());
  stopper.join();
  EXPECT_EQ(ledger_.changes(), now);
}

TEST_F(LedgerTest, RefusalIsATableOfWhoHoldsWhat) {
  std::vector<Reservation> held;
  for (int i = 1; i <= 6; ++i) {
    held.push_back(MustReserve(absl::StrCat("model", i), {{kCuda0, i * kGiB / 4}}));
    if (i != 6) held.back().Commit(held.back().bytes());
  }
  const absl::Status status = ledger_.Check({{kCuda0, 3 * kGiB}, {kCuda1, kGiB}},
                                            {{kCuda0, 3 * kGiB}, {kCuda1, 12 * kGiB}});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(
      status.message(),
      "not enough device memory: needed is more than free less reserved (by loads and "
      "requests under way)\n"
      "  device         needed         free     reserved  held by\n"
      "  cuda:0       3.00 GiB     3.00 GiB     1.50 GiB  1.50 GiB model6 (loading), 1.25 GiB "
      "model5, "
      "1.00 GiB model4, 768.00 MiB model3, 768.00 MiB 2 more, 1.25 GiB not weights or staging of "
      "this server");
}

TEST_F(LedgerTest, RefusalOfAnEmptyDeviceSaysNobody) {
  const absl::Status status =
      ledger_.Check({{kCuda0, 9 * kGiB}, {kCuda1, 13 * kGiB}, {kCpu, 0}}, {});
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("cuda:0       9.00 GiB     8.00 GiB          0 B  nobody"),
                    HasSubstr("cuda:1      13.00 GiB    12.00 GiB          0 B  nobody"),
                    Not(HasSubstr("cpu"))));
}

TEST_F(LedgerTest, NoNeedAlwaysFits) {
  EXPECT_TRUE(ledger_.Check({}, {}).ok());
  Reservation all = MustReserve("a", {{kCuda0, 8 * kGiB}});
  EXPECT_TRUE(ledger_.Check({{kCuda0, 0}}, {{kCuda0, 0}}).ok());
}

TEST_F(LedgerTest, RefusesWhatMakesNoSense) {
  EXPECT_EQ(ledger_.Check({{{"cuda", 9}, 1}}, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ledger_.Check({{kCuda0, -1}}, {}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LedgerTest, ManyThreadsNeverOverfillADeviceAndLeaveNothing) {
  std::atomic<int64_t> held{0};
  std::atomic<bool> overfilled{false};
  std::atomic<int> granted{0};
  const auto load = [&](int thread) {
    for (int i = 0; i < 400; ++i) {
      const int64_t need = (1 + (thread + i) % 4) * kGiB;
      auto reservation = ledger_.Reserve("load", {{kCuda0, need}, {kCpu, 1}}, {});
      if (!reservation.ok()) continue;
      ++granted;
      if (held.fetch_add(need) + need > 8 * kGiB) overfilled = true;
      if (i % 2 == 0) reservation->Commit({{kCuda0, need}, {kCpu, 1}});
      if (ledger_.Use().at(kCuda0).weights_bytes > 8 * kGiB) overfilled = true;
      held -= need;
      if (i % 3 == 0) reservation->Release();
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back(load, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(overfilled);
  EXPECT_GT(granted, 0);
  for (const auto& [device, use] : ledger_.Use()) {
    EXPECT_EQ(use.weights_bytes, 0) << device.ToString();
    EXPECT_EQ(use.reserved_bytes, 0) << device.ToString();
  }
}

TEST_F(LedgerTest, OneReservationMayBeEndedByManyThreads) {
  Reservation reservation = MustReserve("a", {{kCuda0, 8 * kGiB}});
  std::vector<std::thread> enders;
  for (int i = 0; i < 4; ++i) {
    enders.emplace_back([&, i] {
      if (i % 2 == 0) {
        reservation.Release();
      } else {
        reservation.Commit({{kCuda0, kGiB}});
      }
    });
  }
  for (std::thread& ender : enders) ender.join();
  EXPECT_EQ(Weights(kCuda0), 0);
  EXPECT_EQ(Reserved(kCuda0), 0);
}

}  // namespace
}  // namespace distorch
