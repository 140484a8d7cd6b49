// Activations in the ledger: requests are admitted by what they need, and memory that runs out all
// the same, at any allocation, ends one request and leaves nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "lib/device/simulated_device.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_checkpoint.h"

namespace distorch {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

struct Measurement {
  std::string phase;
  int64_t at_least, expected, measured;
};

class Notes : public Observer {
 public:
  void ActivationsMeasured(std::string_view phase, std::string_view, int64_t at_least,
                           int64_t expected, int64_t measured) override {
    absl::MutexLock lock(&mutex_);
    measurements_.push_back({std::string(phase), at_least, expected, measured});
  }
  void Warning(std::string_view message) override {
    absl::MutexLock lock(&mutex_);
    warnings_.emplace_back(message);
  }
  std::vector<Measurement> TakeMeasurements() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(measurements_, {});
  }
  std::vector<std::string> TakeWarnings() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(warnings_, {});
  }

 private:
  absl::Mutex mutex_;
  std::vector<Measurement> measurements_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> warnings_ ABSL_GUARDED_BY(mutex_);
};

class MemoryAdmissionTest : public testing::Test {
 protected:
  void Start(const std::string& devices) {
    client_.reset();
    core_.reset();
    CoreOptions options;
    options.checkpoint_dirs = {DISTORCH_DEMO_DIR, DISTORCH_GOLDEN_CACHE};
    options.simulate_devices = devices;
    options.compute_dtype = "fp32";
    options.evict = "never";
    options.staging_mb = 0;
    auto core = DaemonCore::Create(options, &notes_);
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    client_ = std::make_unique<CoreClient>(core_.get());
  }
  void TearDown() override {
    if (core_ == nullptr) return;
    EXPECT_TRUE(client_->UnloadAll().ok());
    ExpectHeld(0);
  }

  // All of the demo on `device`, unless `split` says otherwise.
  InferSpec Load(const std::string& device, const std::string& split = "",
                 const std::string& name = "shapes-sd1.safetensors") {
    LoadSpec spec;
    spec.ckpt_name = name;
    spec.unet_compute_device = spec.clip_compute_device = spec.vae_device = device;
    spec.unet_expert_mode_allocations = split.empty() ? absl::StrCat(device, ",100%") : split;
    spec.clip_expert_mode_allocations = absl::StrCat(device, ",100%");
    spec.execution = "holder";
    spec.eject_models = false;
    const auto loaded = client_->Load(spec);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    InferSpec infer;
    infer.model = loaded->model;
    infer.clip = loaded->clip;
    infer.vae = loaded->vae;
    infer.prompt = "a red circle";
    infer.width = infer.height = 64;
    infer.options.steps = 1;
    return infer;
  }
  static InferSpec OfSide(InferSpec spec, int side) {
    spec.width = spec.height = side;
    return spec;
  }
  // By accelerators and the ledger, beyond weights.
  void ExpectHeld(int64_t weights) {
    int64_t allocated = 0, other = 0;
    for (const DeviceInfo& device : core_->ListDevices()) {
      if (device.name != "cpu") allocated += device.total_bytes - device.free_bytes;
      other += device.reserved_bytes + device.activation_bytes + device.staging_bytes;
    }
    EXPECT_EQ(allocated, weights);
    EXPECT_EQ(other, 0);
  }
  int64_t Weights() {
    int64_t bytes = 0;
    for (const DeviceInfo& device : core_->ListDevices()) bytes += device.weights_bytes;
    return bytes;
  }
  // What `run` has allocated on cuda:`index` at most beyond what was there.
  template <typename Call>
  static int64_t PeakOf(int index, Call run) {
    ResetSimulatedPeak(index);
    run();
    const SimulatedDeviceStats stats = GetSimulatedDeviceStats(index);
    return stats.peak_bytes - stats.allocated_bytes;
  }
  // Whether anything since `ResetSimulatedAsked` was asked for in vain.
  static bool RanOut(int index) {
    const SimulatedDeviceStats stats = GetSimulatedDeviceStats(index);
    return stats.asked_bytes > stats.capacity_bytes;
  }

  Notes notes_;
  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
};

TEST_F(MemoryAdmissionTest, IsCountedBetweenTheLeastAndTheMost) {
  for (const std::string family : {"sd1", "sdxl", "sd3", "flux"}) {
    const auto path = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, family, DISTORCH_GOLDEN_CACHE);
    ASSERT_TRUE(path.ok()) << path.status();
    for (const int side : {64, 256}) {
      Start("cuda:0=4GiB,cuda:1=1GiB");  // nothing is known yet
      InferSpec spec = OfSide(Load("cuda:0", "", path->substr(path->rfind('/') + 1)), side);
      spec.tile_size = side == 64 ? 0 : 128;
      const auto result = client_->Infer(spec);
      ASSERT_TRUE(result.ok()) << result.status();
      const std::vector<Measurement> measurements = notes_.TakeMeasurements();
      EXPECT_EQ(measurements.size(), 3u);
      for (const Measurement& m : measurements) {
        SCOPED_TRACE(absl::StrCat(family, " ", side, " ", m.phase, ": ", m.at_least, " ",
                                  m.expected, " ", m.measured));
        // Of what is small, copies of weights are the larger part.
        if (side == 256 && m.phase != "text") {
          EXPECT_GT(m.at_least, m.measured / 8);
        }
        EXPECT_LE(m.at_least, m.measured);
        EXPECT_GE(m.expected, m.measured);
        EXPECT_LT(m.expected, m.measured * 8);
      }
      EXPECT_TRUE(client_->UnloadAll().ok());
    }
  }
}

TEST_F(MemoryAdmissionTest, IsHeldWhileAPhaseRuns) {
  Start("cuda:0=1GiB");
  const InferSpec spec = Load("cuda:0");
  const int64_t weights = Weights();
  int64_t held = 0;
  InferCallbacks callbacks;
  callbacks.progress = [&](const StepProgress&) {
    const DeviceInfo device = core_->ListDevices().front();
    held = device.reserved_bytes + device.activation_bytes;
    EXPECT_GT(device.activation_bytes, 0);
  };
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client_->Infer(spec, std::make_shared<CancelToken>(), callbacks).ok());
    ExpectHeld(weights);
  }
  // The second time, what the first one took.
  const std::vector<Measurement> measurements = notes_.TakeMeasurements();
  ASSERT_EQ(measurements.size(), 6u);
  EXPECT_EQ(measurements[4].phase, "sample");
  EXPECT_EQ(measurements[4].expected, measurements[1].measured);
  EXPECT_EQ(held, measurements[1].measured);
}

TEST_F(MemoryAdmissionTest, WhatFitsRunsAndWhatDoesNotIsRefusedBeforeItStarts) {
  Start("cuda:0=40MiB");
  const InferSpec spec = Load("cuda:0");
  const int64_t weights = Weights();
  const auto small = client_->Infer(spec);
  ASSERT_TRUE(small.ok()) << small.status();
  int steps = 0;
  InferCallbacks callbacks;
  callbacks.progress = [&](const StepProgress&) { ++steps; };
  for (int i = 0; i < 2; ++i) {
    ResetSimulatedAsked(0);
    const absl::Status large =
        client_->Infer(OfSide(spec, 2048), std::make_shared<CancelToken>(), callbacks).status();
    EXPECT_EQ(large.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(large.message()), HasSubstr("shapes-sd1.safetensors (unet)"));
    EXPECT_FALSE(RanOut(0));
    ExpectHeld(weights);
  }
  EXPECT_EQ(steps, 0);
  const auto again = client_->Infer(spec);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->png, small->png);
}

TEST_F(MemoryAdmissionTest, WhatRanOutOfMemoryIsRefusedTheNextTime) {
  Start("cuda:0=1GiB");
  InferSpec spec = Load("cuda:0");
  spec.width = 256;
  const int64_t weights = Weights();
  const int64_t peak = PeakOf(0, [&] { EXPECT_TRUE(client_->Infer(spec).ok()); });

  // The largest phase has just enough, and then a byte too little.
  for (const int64_t lacking : {0, 1}) {
    EXPECT_TRUE(client_->UnloadAll().ok());
    Start(absl::StrCat("cuda:0=", weights + peak - lacking));
    spec = OfSide(Load("cuda:0"), 64);
    spec.width = 256;
    spec.outputs = {.files = false, .latent = true};  // sampling only
    ResetSimulatedAsked(0);
    const absl::Status first = client_->Infer(spec).status();
    if (first.ok()) continue;
    EXPECT_EQ(first.code(), absl::StatusCode::kResourceExhausted) << first;
    EXPECT_TRUE(RanOut(0));
    ResetSimulatedAsked(0);
    const absl::Status second = client_->Infer(spec).status();
    EXPECT_EQ(second.code(), absl::StatusCode::kResourceExhausted) << second;
    EXPECT_FALSE(RanOut(0));
    ExpectHeld(weights);
  }
}

TEST_F(MemoryAdmissionTest, AVaeGoesStraightToTilesWhenTheWholeIsKnownNotToFit) {
  Start("cuda:0=1GiB,cuda:1=90MiB");
  const InferSpec spec = Load("cuda:1");
  DecodeLatentSpec decode;
  decode.vae = spec.vae;
  decode.latent.shape = {1, 4, 8, 240};
  decode.latent.data.assign(4 * 8 * 240 * sizeof(float), '\0');
  std::vector<std::string> images;
  for (int i = 0; i < 2; ++i) {
    ResetSimulatedAsked(1);
    const auto decoded = client_->Decode(decode);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    images.push_back(decoded->images.data);
    EXPECT_THAT(notes_.TakeWarnings(),
                Contains(HasSubstr("no memory to decode an image at once, going on by tiles")));
  }
  EXPECT_FALSE(RanOut(1));
  EXPECT_EQ(images[0], images[1]);
}

// One model computes on cuda:0 and, half of it, on cuda:1; another one on cuda:1, which has memory
// for the activations of either, not of both.
TEST_F(MemoryAdmissionTest, RequestsAtOnceNeverExceedADevice) {
  constexpr int kEach = 6;
  const auto load = [this] {
    return std::pair(OfSide(Load("cuda:0", "cuda:0,50%;cuda:1,50%"), 256),
                     OfSide(Load("cuda:1"), 256));
  };
  Start("cuda:0=1GiB,cuda:1=1GiB");
  auto [spread, alone] = load();
  const int64_t spread_peak = PeakOf(1, [&] { EXPECT_TRUE(client_->Infer(spread).ok()); });
  const int64_t alone_peak = PeakOf(1, [&] { EXPECT_TRUE(client_->Infer(alone).ok()); });
  const int64_t weights = GetSimulatedDeviceStats(1).allocated_bytes;
  EXPECT_GT(spread_peak, 0);

  EXPECT_TRUE(client_->UnloadAll().ok());
  Start(absl::StrCat("cuda:0=1GiB,cuda:1=", weights + std::max(spread_peak, alone_peak)));
  std::tie(spread, alone) = load();
  std::vector<absl::Status> ends(2 * kEach);
  absl::BlockingCounter ended(2 * kEach);
  for (int i = 0; i < 2 * kEach; ++i) {
    core_->Infer(i % 2 == 0 ? spread : alone, std::make_shared<CancelToken>(), {},
                 [&, i](const absl::StatusOr<InferResult>& result) {
                   ends[static_cast<size_t>(i)] = result.status();
                   ended.DecrementCount();
                 });
  }
  ended.Wait();
  for (const absl::Status& end : ends) EXPECT_TRUE(end.ok()) << end;
  EXPECT_THAT(notes_.TakeWarnings(), IsEmpty());
}

// Every allocation of a small request fails once.
class FailingAllocationTest : public MemoryAdmissionTest, public testing::WithParamInterface<int> {
 protected:
  static constexpr int kParts = 6;
};

TEST_P(FailingAllocationTest, EndsTheRequestAloneAndLeavesNothing) {
  constexpr int64_t kNever = int64_t{1} << 40;
  Start("cuda:0=256MiB");
  const InferSpec spec = OfSide(Load("cuda:0"), 16);
  const int64_t weights = Weights();
  FailSimulatedAllocation(0, kNever);
  const auto expected = client_->Infer(spec);
  ASSERT_TRUE(expected.ok()) << expected.status();
  const int64_t allocations = kNever - GetSimulatedDeviceStats(0).fails_in;
  ASSERT_GT(allocations, 100);

  int failed = 0;
  for (int64_t nth = 1 + GetParam(); nth <= allocations; nth += kParts) {
    SCOPED_TRACE(nth);
    FailSimulatedAllocation(0, nth);
    const auto result = client_->Infer(spec);
    EXPECT_EQ(GetSimulatedDeviceStats(0).fails_in, 0);
    if (!result.ok()) {
      ++failed;
      EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << result.status();
    }
    ExpectHeld(weights);
    if (HasFailure()) break;
  }
  EXPECT_GT(failed, 0);
  FailSimulatedAllocation(0, 0);
  const auto again = client_->Infer(spec);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->png, expected->png);
}

INSTANTIATE_TEST_SUITE_P(Parts, FailingAllocationTest, testing::Range(0, 6));

}  // namespace
}  // namespace distorch
