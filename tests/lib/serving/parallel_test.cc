// Several devices at once: one request's batch over two, and the phases of different requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "lib/pipeline/png_codec.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_checkpoint.h"

namespace distorch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// What a test waits for at most before it fails; never what it waits.
constexpr absl::Duration kPatience = absl::Seconds(60);

// Of float32 samples, relative to the largest: kernels round batches of another size otherwise.
constexpr double kTolerance = 5e-5;

double Difference(const std::string& a, const std::string& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0, difference = 0;
  for (size_t i = 0; i + sizeof(float) <= std::min(a.size(), b.size()); i += sizeof(float)) {
    float x = 0, y = 0;
    std::memcpy(&x, a.data() + i, sizeof(x));
    std::memcpy(&y, b.data() + i, sizeof(y));
    largest = std::max(largest, std::abs(double{y}));
    difference = std::max(difference, std::abs(double{x} - double{y}));
  }
  return difference / largest;
}

class Recorder : public Observer {
 public:
  void PhaseDone(std::string_view phase, std::string_view /*family*/, double /*seconds*/) override {
    absl::MutexLock lock(&mutex_);
    ++done_[std::string(phase)];
  }
  void Warning(std::string_view message) override {
    absl::MutexLock lock(&mutex_);
    warnings_.emplace_back(message);
  }
  // False when it took too long.
  bool Await(const std::string& phase, int count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return done_[phase] >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience);
  }
  int Count(const std::string& phase) {
    absl::MutexLock lock(&mutex_);
    return done_[phase];
  }
  std::vector<std::string> TakeWarnings() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(warnings_, {});
  }

 private:
  absl::Mutex mutex_;
  std::map<std::string, int> done_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> warnings_ ABSL_GUARDED_BY(mutex_);
};

class ParallelTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto path = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, "sd1", DISTORCH_GOLDEN_CACHE);
    ASSERT_TRUE(path.ok()) << path.status();
    ckpt_name_ = path->substr(path->rfind('/') + 1);
    CoreOptions options;
    options.checkpoint_dirs = {DISTORCH_GOLDEN_CACHE};
    options.lora_dirs = {DISTORCH_GOLDEN_DIR};
    options.simulate_devices = "cuda:0=1GiB,cuda:1=1GiB,cuda:2=8KiB";
    options.compute_dtype = "fp32";
    auto core = DaemonCore::Create(options, &recorder_);
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    client_ = std::make_unique<CoreClient>(core_.get());
  }
  void TearDown() override {
    UnloadSpec all;
    all.all = all.force = true;
    EXPECT_TRUE(client_->Unload(all).ok());
    for (const DeviceInfo& device : core_->ListDevices()) {
      if (device.name != "cpu") {
        EXPECT_EQ(device.free_bytes, device.total_bytes) << device.name;
      }
      EXPECT_EQ(device.staging_bytes, 0) << device.name;
    }
  }

  LoadResult Load(const std::string& unet = "cuda:0", const std::string& clip = "cuda:0") {
    LoadSpec spec;
    spec.ckpt_name = ckpt_name_;
    spec.unet_compute_device = unet;
    spec.clip_compute_device = clip;
    spec.vae_device = "cuda:0";
    spec.unet_expert_mode_allocations = "cuda:0,60%;cuda:1,20%;cpu,20%";
    spec.eject_models = false;
    const auto loaded = client_->Load(spec);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.value_or(LoadResult());
  }

  SampleSpec Spec(const LoadResult& loaded, int batch = 1) {
    SampleSpec spec;
    spec.model = loaded.model;
    spec.options.steps = 3;
    spec.options.cfg = 7;
    spec.options.seed = 5;
    spec.latent.shape = {batch, 4, 8, 8};
    spec.latent.data.assign(static_cast<size_t>(batch) * 4 * 8 * 8 * sizeof(float), '\0');
    spec.positive.id = Encode(loaded.clip, "a red fox in snow");
    spec.negative.id = Encode(loaded.clip, "blurry");
    return spec;
  }
  std::string Encode(const std::string& clip, const std::string& text) {
    const auto encoded = client_->EncodeText({clip, text});
    EXPECT_TRUE(encoded.ok()) << encoded.status();
    return encoded.ok() ? encoded->conditioning_id : "";
  }
  std::string Sample(SampleSpec spec, const std::string& parallel, InferCallbacks callbacks = {}) {
    spec.options.parallel = parallel;
    const auto sampled = client_->Sample(spec, std::make_shared<CancelToken>(), callbacks);
    EXPECT_TRUE(sampled.ok()) << sampled.status();
    return sampled.ok() ? sampled->data : "";
  }
  // Of weights, from anywhere.
  int64_t BytesTo(const std::string& device) {
    int64_t bytes = 0;
    for (const LinkInfo& link : core_->Links()) {
      if (link.to == device) bytes += link.bytes;
    }
    return bytes;
  }

  Recorder recorder_;
  std::string ckpt_name_;
  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
};

TEST_F(ParallelTest, TwoDevicesMakeTheSameAsOne) {
  const LoadResult loaded = Load();
  for (const int batch : {1, 3}) {
    for (const double cfg : {1.0, 7.0}) {
      SCOPED_TRACE(absl::StrCat("batch ", batch, ", cfg ", cfg));
      SampleSpec spec = Spec(loaded, batch);
      spec.options.cfg = cfg;
      const std::string one = Sample(spec, "off");
      const int64_t before = BytesTo("cuda:1");
      const std::string two = Sample(spec, "cuda:1");
      // What lies elsewhere came for as many evaluations; a single item stays where it is.
      EXPECT_EQ(BytesTo("cuda:1") > before, batch * (cfg == 1 ? 1 : 2) > 1);
      EXPECT_LE(Difference(two, one), kTolerance);
      EXPECT_LE(Difference(Sample(spec, "auto"), one), kTolerance);
      // Where the shares are the same, so are the bits: whichever device helps, or none.
      EXPECT_TRUE(Sample(spec, "cpu") == two);
    }
  }
  EXPECT_THAT(recorder_.TakeWarnings(), testing::Not(testing::Contains(HasSubstr("cuda:1"))));
}

TEST_F(ParallelTest, HalvesOfDifferentLengthAndAdaptersToo) {
  const LoadResult loaded = Load();
  const auto lora =
      client_->ApplyLora({loaded.model, loaded.clip, "sd1/lora.safetensors", 0.8, 0.8});
  ASSERT_TRUE(lora.ok()) << lora.status();
  SampleSpec spec = Spec(loaded, 2);
  const std::string plain = Sample(spec, "off");
  spec.model = lora->model;
  spec.positive.id =
      Encode(lora->clip, "a " + std::string(400, 'x') + " long long prompt of a fox");
  const std::string one = Sample(spec, "off");
  EXPECT_GT(Difference(one, plain), kTolerance);
  EXPECT_LE(Difference(Sample(spec, "cuda:1"), one), kTolerance);
}

TEST_F(ParallelTest, ADeviceShortOfMemoryIsLeftOutWithAWarning) {
  const LoadResult loaded = Load();
  const SampleSpec spec = Spec(loaded);
  const std::string two = Sample(spec, "cuda:1");
  EXPECT_THAT(recorder_.TakeWarnings(), IsEmpty());
  EXPECT_TRUE(Sample(spec, "cuda:2") == two);
  EXPECT_THAT(recorder_.TakeWarnings(), ElementsAre(HasSubstr("cuda:2")));
}

TEST_F(ParallelTest, ABusyDeviceIsNotWaitedFor) {
  const LoadResult loaded = Load(), other = Load("cuda:1");
  const SampleSpec spec = Spec(loaded);
  const std::string two = Sample(spec, "cuda:1");
  // cuda:1 is in the middle of a step until the sampling on cuda:0 has ended.
  absl::Notification began, ended;
  InferCallbacks callbacks;
  callbacks.progress = [&](const StepProgress& progress) {
    if (progress.step != 1) return;
    began.Notify();
    EXPECT_TRUE(ended.WaitForNotificationWithTimeout(kPatience));
  };
  absl::Notification finished;
  core_->Sample(Spec(other), std::make_shared<CancelToken>(), callbacks,
                [&](const absl::StatusOr<HostTensor>& sampled) {
                  EXPECT_TRUE(sampled.ok()) << sampled.status();
                  finished.Notify();
                });
  ASSERT_TRUE(began.WaitForNotificationWithTimeout(kPatience));
  EXPECT_TRUE(Sample(spec, "cuda:1") == two);
  ended.Notify();
  finished.WaitForNotification();
}

TEST_F(ParallelTest, CancellingEndsBothDevicesWork) {
  const LoadResult loaded = Load();
  SampleSpec spec = Spec(loaded, 2);
  spec.options.parallel = "cuda:1";
  const auto cancel = std::make_shared<CancelToken>();
  InferCallbacks callbacks;
  callbacks.progress = [&](const StepProgress&) { cancel->Cancel(absl::CancelledError("enough")); };
  EXPECT_EQ(client_->Sample(spec, cancel, callbacks).status().message(), "enough");
  EXPECT_EQ(recorder_.Count("step"), 1);
}

TEST_F(ParallelTest, ProgressAndPicturesStayTheSame) {
  const LoadResult loaded = Load();
  InferSpec spec;
  spec.model = loaded.model;
  spec.clip = loaded.clip;
  spec.vae = loaded.vae;
  spec.prompt = "a red fox";
  spec.width = spec.height = 64;
  spec.options.steps = 3;
  const auto infer = [&](const std::string& parallel) {
    spec.options.parallel = parallel;
    std::vector<int> steps;
    InferCallbacks callbacks;
    callbacks.progress = [&](const StepProgress& progress) { steps.push_back(progress.step); };
    const auto result = client_->Infer(spec, std::make_shared<CancelToken>(), callbacks);
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_THAT(steps, ElementsAre(1, 2, 3));
    return result.ok() ? DecodePng(result->png[0]).value().image.pixels : std::vector<uint8_t>();
  };
  const std::vector<uint8_t> one = infer("off"), two = infer("cuda:1");
  ASSERT_EQ(one.size(), two.size());
  for (size_t i = 0; i < one.size(); ++i) ASSERT_LE(std::abs(one[i] - two[i]), 1);
}

TEST_F(ParallelTest, UnknownDevicesAreRefused) {
  const LoadResult loaded = Load();
  SampleSpec spec = Spec(loaded);
  for (const char* const bad : {"cuda:9", "cuda:1,", "on", "auto,cuda:1", "cuda:1;cuda:2"}) {
    spec.options.parallel = bad;
    const absl::Status status = client_->Sample(spec).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("options.parallel: '"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("cuda:0, cuda:1, cuda:2, cpu"));
  }
}

// A pipeline: while one request's UNet computes on cuda:0, the text of the next is encoded on
// cuda:1. Were both on one executor, the first would wait for ever for the second.
TEST_F(ParallelTest, PhasesOfDifferentRequestsOverlapOnDifferentDevices) {
  const LoadResult loaded = Load("cuda:0", "cuda:1");
  InferSpec spec;
  spec.model = loaded.model;
  spec.clip = loaded.clip;
  spec.vae = loaded.vae;
  spec.prompt = "a red fox";
  spec.width = spec.height = 64;
  spec.options.steps = 2;
  absl::Notification sampling;
  InferCallbacks first;
  first.progress = [&](const StepProgress& progress) {
    if (progress.step != 1) return;
    EXPECT_EQ(recorder_.Count("text"), 1);
    sampling.Notify();
    EXPECT_TRUE(recorder_.Await("text", 2));
    EXPECT_EQ(recorder_.Count("sample"), 0);
  };
  absl::Notification finished[2];
  const auto done = [&](int i) {
    return [&finished, i](const absl::StatusOr<InferResult>& result) {
      EXPECT_TRUE(result.ok()) << result.status();
      finished[i].Notify();
    };
  };
  core_->Infer(spec, std::make_shared<CancelToken>(), first, done(0));
  ASSERT_TRUE(sampling.WaitForNotificationWithTimeout(kPatience));
  spec.options.seed = 1;
  core_->Infer(spec, std::make_shared<CancelToken>(), {}, done(1));
  for (absl::Notification& end : finished) end.WaitForNotification();
}

}  // namespace
}  // namespace distorch
