// The streamer over simulated devices: with links whose time is simulated against a clock that only
// the test moves, and without, when its own threads copy.
#include "lib/distorch/streamer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "lib/base/torch_status.h"
#include "lib/device/simulated_device.h"
#include "lib/distorch/stream_schedule.h"

namespace distorch {
namespace {

const DeviceId kCpu{}, kCuda0{"cuda", 0}, kCuda1{"cuda", 1};
const at::Device kHost = at::kCPU;
constexpr int64_t kKiB = 1 << 10, kMiB = 1 << 20;

at::Device Sim(int index) {
  return {c10::DeviceType::PrivateUse1, static_cast<c10::DeviceIndex>(index)};
}

// Says that the block's number is its content, as often as it is asked to fail before.
class FakeFile final : public WeightSource {
 public:
  explicit FakeFile(float content) : content_(content) {}
  absl::Status Read(std::span<const at::Tensor> into) const override {
    if (failures > 0) {
      --failures;
      return absl::DataLossError("the file ends early");
    }
    for (const at::Tensor& tensor : into) tensor.fill_(content_);
    return absl::OkStatus();
  }
  mutable std::atomic<int> failures{0};

 private:
  const float content_;
};

StoredWeights Block(int number, int64_t bytes, const at::Device& device) {
  StoredWeights block;
  const bool disk = device.is_meta();
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  block.tensors.push_back(at::empty({bytes / 4 - 3}, options));
  block.tensors.push_back(at::empty({3}, options));
  if (disk) {
    block.source = std::make_shared<FakeFile>(static_cast<float>(number));
  } else {
    for (const at::Tensor& tensor : block.tensors) tensor.fill_(number);
  }
  return block;
}

bool Holds(const StagedWeights& staged, int number) {
  return std::all_of(staged.tensors.begin(), staged.tensors.end(), [&](const at::Tensor& tensor) {
    return at::all(tensor.cpu() == number).item<bool>();
  });
}

class StreamerTest : public testing::Test {
 protected:
  StreamerTest() {
    EXPECT_TRUE(ConfigureSimulatedDevices({{kCuda0, 64 * kMiB}, {kCuda1, 64 * kMiB}}).ok());
    meter_ = std::make_unique<TransferMeter>(std::vector{kCuda0, kCuda1, kCpu, kDisk});
  }
  ~StreamerTest() override {
    streamer_.reset();
    blocks_.clear();
    EXPECT_EQ(GetSimulatedDeviceStats(0).allocated_bytes, 0);
    EXPECT_EQ(GetSimulatedDeviceStats(1).allocated_bytes, 0);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(meter_->staging_bytes(i), 0);
  }

  // `links`: simulated; empty: threads copy.
  void Start(const std::string& links, int64_t staging_bytes) {
    const auto table = ParseLinks(links, {kCuda0, kCuda1, kCpu});
    ASSERT_TRUE(table.ok()) << table.status();
    StreamerOptions options{.staging_bytes = staging_bytes, .simulated = !links.empty()};
    if (options.simulated) options.wall_clock = [this] { return clock_; };
    streamer_ = std::make_unique<Streamer>(std::move(options),
                                           std::vector<c10::Device>{Sim(0), Sim(1), kHost}, *table,
                                           meter_.get(), &ledger_);
  }
  // Opens a stream of what is in blocks_ and not on `compute`.
  std::unique_ptr<WeightStream> Open(const at::Device& compute = Sim(0)) {
    int64_t elsewhere = 0;
    for (const StoredWeights& block : blocks_) {
      if (block.device() != compute) elsewhere += block.bytes();
    }
    auto stream = streamer_->Open();
    stream->ComputeOn(compute, elsewhere);
    streamer_->FitRings({{kCuda0, 64 * kMiB}, {kCuda1, 64 * kMiB}, {kCpu, 64 * kMiB}});
    return stream;
  }
  // One pass over blocks_, block i computing for seconds[i].
  void Pass(const WeightStream& stream, const std::vector<double>& seconds) {
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i].device() == Sim(0)) {
        clock_ += seconds[i];
        continue;
      }
      const StagedWeights staged = stream.Bring(blocks_[i], Sim(0));
      ASSERT_TRUE(Holds(staged, static_cast<int>(i))) << i;
      clock_ += seconds[i];
    }
  }
  double Now() const { return streamer_->timeline(Sim(0)).now(); }

  double clock_ = 1000;
  std::unique_ptr<TransferMeter> meter_;
  Ledger ledger_{{{kCuda0, 64 * kMiB}, {kCuda1, 64 * kMiB}, {kCpu, 64 * kMiB}}};
  std::vector<StoredWeights> blocks_;
  std::unique_ptr<Streamer> streamer_;
};

enum class Split { kAll, kTail, kSpread };
struct Case {
  double gb_per_second;
  double compute_per_transfer;
  Split split;
};

class StreamerGridTest : public StreamerTest, public testing::WithParamInterface<Case> {};

TEST_P(StreamerGridTest, AStepTakesWhatIsPredictedAndHidesTheTransfers) {
  const Case& c = GetParam();
  constexpr int kBlocks = 90;
  std::mt19937 random(1);
  const LinkSpeed link{c.gb_per_second * 1e9, 1e-6};
  std::vector<StreamUnit> units;
  double compute = 0, transfer = 0;
  int64_t model_bytes = 0, elsewhere = 0;
  for (int i = 0; i < kBlocks; ++i) {
    const bool offloaded = c.split == Split::kAll ||
                           (c.split == Split::kTail && i >= kBlocks / 2) ||
                           (c.split == Split::kSpread && i % 2 == 1);
    const int64_t bytes = (8 + static_cast<int64_t>(random() % 24)) * kKiB;
    blocks_.push_back(Block(i, bytes, offloaded ? kHost : Sim(0)));
    units.push_back({.bytes = bytes,
                     .link = offloaded ? 0 : -1,
                     .compute_seconds = 1 + static_cast<double>(random() % 4)});
    model_bytes += bytes;
    compute += units.back().compute_seconds;
    if (offloaded) {
      transfer += link.Seconds(bytes);
      elsewhere += bytes;
    }
  }
  const double scale = c.compute_per_transfer * transfer / compute;
  compute *= scale;
  std::vector<double> seconds;
  for (StreamUnit& unit : units) seconds.push_back(unit.compute_seconds *= scale);

  // A tail is the worst case: while its blocks compute, the link has only that part of the step,
  // but for what the ring holds by then.
  const int64_t budget = RingSize(model_bytes / (c.split == Split::kTail ? 2 : 4), elsewhere);
  Start(absl::StrCat("cpu-cuda:0=", c.gb_per_second, "GB/s,1us"), budget);
  const auto stream = Open();
  Pass(*stream, seconds);
  const double learned = Now();
  EXPECT_NEAR(learned - 1000, compute + transfer, 1e-9) << "the first pass is synchronous";
  for (int i = 0; i < 3; ++i) Pass(*stream, seconds);
  const double start = Now();
  constexpr int kPasses = 4;
  for (int i = 0; i < kPasses; ++i) Pass(*stream, seconds);
  const double step = (Now() - start) / kPasses;

  EXPECT_LE(step, 1.10 * std::max(compute, transfer));
  if (c.compute_per_transfer == 2) {
    EXPECT_LE(step, 1.05 * compute);
  }
  EXPECT_NEAR(step, PredictStep(units, std::vector{link}, budget).step_seconds, 0.01 * step);
  EXPECT_LE(meter_->peak_staging_bytes(0), budget + 64 * kKiB)
      << "the ring, and one block before it";
  EXPECT_EQ(streamer_->RingBytes().at(kCuda0), budget);

  const auto links = meter_->Links();
  ASSERT_EQ(links.size(), 1u);
  EXPECT_NEAR(links[0].exposed_seconds + links[0].overlapped_seconds, 8 * transfer, 1e-6);
  EXPECT_NEAR(links[0].exposed_seconds + 8 * compute, Now() - 1000, 1e-6);
}

std::vector<Case> Grid() {
  std::vector<Case> cases;
  for (double speed : {3.0, 25.0}) {
    for (double ratio : {0.5, 1.0, 2.0, 4.0}) {
      for (Split split : {Split::kAll, Split::kTail, Split::kSpread})
        cases.push_back({speed, ratio, split});
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Grid, StreamerGridTest, testing::ValuesIn(Grid()));

TEST_F(StreamerTest, WithoutARingEveryTransferIsWaitedFor) {
  for (int i = 0; i < 8; ++i) blocks_.push_back(Block(i, kMiB, kHost));
  Start("cpu-cuda:0=1GB/s,10us", 0);
  const auto stream = Open();
  for (int i = 0; i < 3; ++i) Pass(*stream, std::vector<double>(8, 0.001));
  const double transfer = 8 * LinkSpeed{1e9, 10e-6}.Seconds(kMiB);
  EXPECT_NEAR(Now() - 1000, 3 * (0.008 + transfer), 1e-9);
  EXPECT_NEAR(meter_->Links().at(0).exposed_seconds, 3 * transfer, 1e-6);
  EXPECT_EQ(meter_->Links().at(0).overlapped_seconds, 0);
  EXPECT_TRUE(streamer_->RingBytes().empty());
}

TEST_F(StreamerTest, BetweenAcceleratorsTheFasterWayIsTaken) {
  for (const bool direct : {true, false}) {
    meter_ = std::make_unique<TransferMeter>(std::vector{kCuda0, kCuda1, kCpu, kDisk});
    blocks_.clear();
    for (int i = 0; i < 4; ++i) blocks_.push_back(Block(i, kMiB, Sim(1)));
    Start(absl::StrCat("cpu-cuda:0=10GB/s;cpu-cuda:1=10GB/s;cuda:0-cuda:1=",
                       direct ? "6GB/s" : "4GB/s"),
          2 * kMiB);
    const auto stream = Open();
    for (int i = 0; i < 4; ++i) Pass(*stream, std::vector<double>(4, 0.01));
    const auto links = meter_->Links();
    ASSERT_EQ(links.size(), direct ? 1u : 2u);
    EXPECT_EQ(links[0].from, kCuda1);
    EXPECT_EQ(links[0].to, direct ? kCuda0 : kCpu);
    EXPECT_EQ(links[0].bytes, 16 * kMiB);
    if (!direct) {
      EXPECT_EQ(links[1].bytes, 16 * kMiB);
    }
    streamer_->DropRings();
  }
}

TEST_F(StreamerTest, DiskIsReadAheadToo) {
  for (int i = 0; i < 8; ++i) blocks_.push_back(Block(i, kMiB, at::kMeta));
  Start("disk-cpu=1GB/s;cpu-cuda:0=10GB/s", 4 * kMiB);
  const auto stream = Open();
  for (int i = 0; i < 3; ++i) Pass(*stream, std::vector<double>(8, 0.002));
  const double start = Now();
  Pass(*stream, std::vector<double>(8, 0.002));
  EXPECT_NEAR(Now() - start, 0.016, 1e-4);
  EXPECT_EQ(meter_->Links().size(), 2u) << "to the host, then to the device";
}

TEST_F(StreamerTest, AnyOrderGivesTheRightWeights) {
  for (int i = 0; i < 12; ++i) blocks_.push_back(Block(i, (1 + i % 5) * 64 * kKiB, kHost));
  for (const char* links : {"", "cpu-cuda:0=1GB/s"}) {
    Start(links, 600 * kKiB);
    const auto stream = Open();
    std::mt19937 random(3);
    for (int i = 0; i < 400; ++i) {
      // Rounds mostly, with jumps and repetitions.
      const size_t at = random() % 5 == 0 ? random() % 12 : static_cast<size_t>(i) % 12;
      const StagedWeights staged = stream->Bring(blocks_[at], Sim(0));
      ASSERT_TRUE(Holds(staged, static_cast<int>(at))) << i;
    }
  }
}

TEST_F(StreamerTest, LeasesMayOverlap) {
  for (int i = 0; i < 6; ++i) blocks_.push_back(Block(i, 64 * kKiB, kHost));
  Start("", 256 * kKiB);
  const auto stream = Open();
  std::deque<std::pair<int, StagedWeights>> held;
  for (int i = 0; i < 120; ++i) {
    held.emplace_back(i % 6, stream->Bring(blocks_[static_cast<size_t>(i % 6)], Sim(0)));
    if (held.size() > 5) held.pop_front();
    for (const auto& [number, staged] : held) ASSERT_TRUE(Holds(staged, number)) << i;
  }
}

TEST_F(StreamerTest, WhatCannotBeFetchedAheadIsBroughtWhenItIsUsedOrThrows) {
  for (int i = 0; i < 4; ++i) blocks_.push_back(Block(i, 64 * kKiB, at::kMeta));
  for (const char* links : {"", "disk-cpu=1GB/s"}) {
    Start(links, 128 * kKiB);
    const auto stream = Open();
    for (int i = 0; i < 3; ++i) Pass(*stream, std::vector<double>(4, 0.001));
    auto& file = const_cast<FakeFile&>(static_cast<const FakeFile&>(*blocks_[2].source));
    file.failures = 1;  // of the fetch, perhaps: the use tries again
    Pass(*stream, std::vector<double>(4, 0.001));
    file.failures = 1 << 20;
    int errors = 0;
    for (int i = 0; i < 12; ++i) {
      errors += RunTorch([&]() -> absl::Status {
                  stream->Bring(blocks_[static_cast<size_t>(i % 4)], Sim(0));
                  return absl::OkStatus();
                }).ok()
                    ? 0
                    : 1;
    }
    EXPECT_EQ(errors, 3) << "each use of that block";
    file.failures = 0;
    for (int i = 0; i < 3; ++i) Pass(*stream, std::vector<double>(4, 0.001));
  }
}

TEST_F(StreamerTest, RingsTakeAPartOfWhatIsFreeAndGiveWay) {
  for (int i = 0; i < 40; ++i) blocks_.push_back(Block(i, kMiB, kHost));
  Start("", 30 * kMiB);
  auto stream = Open();
  EXPECT_EQ(streamer_->RingBytes(), (BytesByDevice{{kCuda0, 16 * kMiB}})) << "a quarter";
  EXPECT_EQ(ledger_.Use().at(kCuda0).staging_bytes, 16 * kMiB);
  EXPECT_EQ(ledger_.Use().at(kCuda0).weights_bytes, 0);
  streamer_->FitRings({{kCuda0, 48 * kMiB}});
  EXPECT_EQ(streamer_->RingBytes(), (BytesByDevice{{kCuda0, 20 * kMiB}}))
      << "it grows, to half of what is elsewhere";
  const StagedWeights held = stream->Bring(blocks_[0], Sim(0));
  streamer_->DropRings();
  EXPECT_TRUE(streamer_->RingBytes().empty());
  EXPECT_EQ(ledger_.Use().at(kCuda0).staging_bytes, 0);
  EXPECT_TRUE(Holds(stream->Bring(blocks_[1], Sim(0)), 1));
  const at::Tensor hog = at::empty({60 * kMiB}, at::TensorOptions(at::kByte).device(Sim(0)));
  streamer_->FitRings({{kCuda0, 64 * kMiB}});  // a lie
  EXPECT_TRUE(streamer_->RingBytes().empty()) << "no memory, no ring";
  EXPECT_EQ(ledger_.Use().at(kCuda0).staging_bytes, 0);
  EXPECT_TRUE(Holds(stream->Bring(blocks_[2], Sim(0)), 2));
  stream.reset();
}

TEST_F(StreamerTest, StreamsEndWhileOthersCompute) {
  for (int i = 0; i < 16; ++i) blocks_.push_back(Block(i, 64 * kKiB, kHost));
  Start("", 512 * kKiB);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 10; ++round) {
        const auto stream = Open(Sim(t % 2));
        // A pass that is broken off, as a cancelled request's is.
        for (size_t i = 0; i < 16 * 4 + 5; ++i) {
          const StagedWeights staged = stream->Bring(blocks_[i % 16], Sim(t % 2));
          ASSERT_TRUE(Holds(staged, static_cast<int>(i % 16)));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(StreamerTest, OneStreamServesSeveralThreadsAndDevices) {
  for (int i = 0; i < 16; ++i) blocks_.push_back(Block(i, 64 * kKiB, kHost));
  Start("", 512 * kKiB);
  const auto stream = Open(Sim(0));
  stream->ComputeOn(Sim(1), 16 * 64 * kKiB);
  streamer_->FitRings({{kCuda1, 64 * kMiB}});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 16 * 20; ++i) {
        const StagedWeights staged = stream->Bring(blocks_[i % 16], Sim(t % 2));
        ASSERT_TRUE(Holds(staged, static_cast<int>(i % 16)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace distorch
