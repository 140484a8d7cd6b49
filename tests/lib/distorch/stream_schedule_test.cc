#include "lib/distorch/stream_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace distorch {
namespace {

constexpr int64_t kMiB = 1 << 20;

TEST(StagingRingTest, GivesPiecesInOrderAndStartsAgainBehindTheFreed) {
  StagingRing ring(4096);
  EXPECT_EQ(ring.Allocate(1), 0);
  EXPECT_EQ(ring.Allocate(1024), 512);
  EXPECT_EQ(ring.Allocate(2000), 1536);
  EXPECT_EQ(ring.used_bytes(), 3584);
  EXPECT_EQ(ring.Allocate(1024), std::nullopt) << "neither at the end nor at the start";
  ring.Release(512);
  EXPECT_EQ(ring.Allocate(1024), std::nullopt) << "what is older is not given back";
  ring.Release(0);
  EXPECT_EQ(ring.Allocate(1024), 0) << "behind the end";
  EXPECT_EQ(ring.Allocate(512), 1024);
  EXPECT_EQ(ring.Allocate(512), std::nullopt) << "full";
  EXPECT_EQ(ring.used_bytes(), 3584);
}

TEST(StagingRingTest, HoldsNothingLargerThanItself) {
  StagingRing ring(1000);
  EXPECT_EQ(ring.Allocate(600), std::nullopt) << "1024 with its padding";
  EXPECT_EQ(ring.Allocate(512), 0);
  EXPECT_EQ(StagingRing(0).Allocate(1), std::nullopt);
}

TEST(StagingRingTest, PiecesNeverOverlap) {
  std::mt19937 random(7);
  constexpr int64_t kSize = 64 << 10;
  StagingRing ring(kSize);
  std::vector<std::pair<int64_t, int64_t>> held;  // offset, bytes
  for (int i = 0; i < 20000; ++i) {
    if (held.empty() || random() % 2 == 0) {
      const int64_t bytes = 1 + static_cast<int64_t>(random() % 9000);
      const auto offset = ring.Allocate(bytes);
      if (!offset) {
        ASSERT_FALSE(held.empty()) << "an empty ring holds everything up to its size";
        continue;
      }
      ASSERT_GE(*offset, 0);
      ASSERT_LE(*offset + bytes, kSize);
      for (const auto& [other, size] : held)
        ASSERT_TRUE(*offset + bytes <= other || other + size <= *offset);
      held.emplace_back(*offset, bytes);
    } else {
      // Mostly the oldest, as leases end; any other now and then.
      const size_t i = random() % 4 == 0 ? random() % held.size() : 0;
      ring.Release(held[i].first);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
    }
    ASSERT_LE(ring.used_bytes(), kSize);
  }
}

TEST(StreamScheduleTest, FetchesAheadIntoTheNextRoundAsFarAsTheRingReaches) {
  StagingRing ring(3 * 512);
  StreamSchedule schedule({512, 512}, &ring);
  ASSERT_EQ(schedule.Next()->turn, 0);
  ASSERT_EQ(schedule.Next()->turn, 1);
  EXPECT_FALSE(schedule.Next()) << "a whole round is fetched";
  schedule.SkipTo(1);
  const auto third = schedule.Next();
  ASSERT_TRUE(third);
  EXPECT_EQ(third->turn, 2) << "the first of the next round";
  EXPECT_EQ(third->offset, 2 * 512);
  schedule.SkipTo(2);
  EXPECT_FALSE(schedule.Next()) << "the ring is full";
  ring.Release(0);
  EXPECT_EQ(schedule.Next()->turn, 3);
}

TEST(StreamScheduleTest, NothingOvertakesWhatTheRingCannotHold) {
  StagingRing ring(1024);
  StreamSchedule schedule({512, 4096, 512}, &ring);
  EXPECT_EQ(schedule.Next()->turn, 0);
  EXPECT_FALSE(schedule.Next());
  schedule.SkipTo(1);
  EXPECT_FALSE(schedule.Next());
  schedule.SkipTo(2);
  EXPECT_EQ(schedule.Next()->turn, 2);
}

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// A model whose blocks' bytes and seconds vary as a UNet's do: seconds do not follow bytes.
std::vector<StreamUnit> Model(int blocks, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<StreamUnit> units;
  for (int i = 0; i < blocks; ++i) {
    units.push_back({.bytes = kMiB + static_cast<int64_t>(random() % (4 * kMiB)),
                     .compute_seconds = 50e-6 + static_cast<double>(random() % 100) * 1e-6});
  }
  return units;
}

enum class Split { kAll, kTail, kSpread };

struct Case {
  double gb_per_second;
  double compute_per_transfer;
  Split split;
};

// Moves the split's part of `units` behind link 0 and scales the seconds as the case says. Returns
// {compute, transfer} seconds of a step.
std::pair<double, double> Offload(const Case& c, const LinkSpeed& link,
                                  std::vector<StreamUnit>* units) {
  double compute = 0, transfer = 0;
  for (size_t i = 0; i < units->size(); ++i) {
    StreamUnit& unit = (*units)[i];
    const bool offloaded = c.split == Split::kAll ||
                           (c.split == Split::kTail && i >= units->size() / 2) ||
                           (c.split == Split::kSpread && i % 2 == 1);
    unit.link = offloaded ? 0 : -1;
    compute += unit.compute_seconds;
    if (offloaded) transfer += link.Seconds(unit.bytes);
  }
  const double factor = c.compute_per_transfer * transfer / compute;
  for (StreamUnit& unit : *units) unit.compute_seconds *= factor;
  return {compute * factor, transfer};
}

int64_t Bytes(const std::vector<StreamUnit>& units) {
  int64_t bytes = 0;
  for (const StreamUnit& unit : units) bytes += unit.bytes;
  return bytes;
}

class PredictStepTest : public testing::TestWithParam<Case> {};

TEST_P(PredictStepTest, TransfersHideBehindComputing) {
  const Case& c = GetParam();
  const LinkSpeed link{c.gb_per_second * 1e9, 10e-6};
  for (unsigned seed = 0; seed < 5; ++seed) {
    std::vector<StreamUnit> units = Model(300, seed);
    const auto [compute, transfer] = Offload(c, link, &units);
    // While the tail's blocks cross, the link has only the tail's time, but for what the ring
    // holds: a quarter of the model is what the worst such split needs.
    const int64_t budget = c.split == Split::kTail ? Bytes(units) / 4 : Bytes(units) / 10;
    const StreamPrediction predicted = PredictStep(units, std::vector{link}, budget);
    EXPECT_LE(predicted.step_seconds, 1.10 * std::max(compute, transfer));
    EXPECT_GE(predicted.step_seconds, 0.999 * std::max(compute, transfer));
    if (c.compute_per_transfer == 2) {
      EXPECT_LE(predicted.step_seconds, 1.05 * compute);
    }
    EXPECT_LE(predicted.peak_staging_bytes, budget);
    EXPECT_NEAR(Sum(predicted.exposed_seconds) + compute, predicted.step_seconds, 1e-9);
    EXPECT_NEAR(Sum(predicted.exposed_seconds) + Sum(predicted.overlapped_seconds), transfer, 1e-9);

    const StreamPrediction synchronous = PredictStep(units, std::vector{link}, 0);
    EXPECT_NEAR(synchronous.step_seconds, compute + transfer, 1e-9);
    EXPECT_EQ(synchronous.peak_staging_bytes, 0);
  }
}

std::vector<Case> Grid() {
  std::vector<Case> cases;
  for (double speed : {3.0, 12.0, 25.0, 50.0}) {
    for (double ratio : {0.25, 0.5, 1.0, 2.0, 4.0}) {
      for (Split split : {Split::kAll, Split::kTail, Split::kSpread})
        cases.push_back({speed, ratio, split});
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Grid, PredictStepTest, testing::ValuesIn(Grid()));

TEST(PredictStepTest, LinksCarryAtTheSameTime) {
  const std::vector<LinkSpeed> links = {{1e9, 0}, {1e9, 0}};
  std::vector<StreamUnit> units;
  for (int i = 0; i < 200; ++i) units.push_back({.bytes = kMiB, .link = i % 2});
  const double transfer = 100 * links[0].Seconds(kMiB);
  EXPECT_NEAR(PredictStep(units, links, 8 * kMiB).step_seconds, transfer, 0.1 * transfer);
  EXPECT_NEAR(PredictStep(units, links, 0).step_seconds, 2 * transfer, 1e-9);
}

TEST(PredictStepTest, ThroughTheHostBothLinksAreCrossedInTurn) {
  const std::vector<LinkSpeed> links = {{1e9, 0}, {2e9, 0}};
  const std::vector<StreamUnit> units(100, {.bytes = kMiB, .link = 0, .second_link = 1});
  const double slow = links[0].Seconds(kMiB), fast = links[1].Seconds(kMiB);
  EXPECT_NEAR(PredictStep(units, links, 0).step_seconds, 100 * (slow + fast), 1e-9);
  const StreamPrediction hidden = PredictStep(units, links, 8 * kMiB);
  EXPECT_NEAR(hidden.step_seconds, 100 * slow, 5 * slow) << "the slower link is never idle";
}

TEST(PredictStepTest, ResidentUnitsOnlyCompute) {
  const std::vector<StreamUnit> units = {{.bytes = kMiB, .compute_seconds = 2},
                                         {.bytes = 0, .link = 0, .compute_seconds = 1}};
  const StreamPrediction step = PredictStep(units, std::vector<LinkSpeed>{{1e9, 0}}, kMiB);
  EXPECT_EQ(step.step_seconds, 3);
  EXPECT_EQ(step.peak_staging_bytes, 0);
  EXPECT_THAT(step.exposed_seconds, testing::ElementsAre(0));
  EXPECT_EQ(PredictStep({}, {}, kMiB).step_seconds, 0);
}

}  // namespace
}  // namespace distorch
