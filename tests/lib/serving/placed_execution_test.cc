// Models whose parts run where their weights lie: the same bits, less traffic, and what clients are
// told of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <string>

#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_case.h"
#include "tests/support/golden_checkpoint.h"

namespace distorch {
namespace {

using testing::HasSubstr;

constexpr double kDenoisedTolerance = 2e-5;
const std::string kGoldenDir = DISTORCH_GOLDEN_DIR;
const std::string kCacheDir = DISTORCH_GOLDEN_CACHE;

CoreOptions Options() {
  CoreOptions options;
  options.checkpoint_dirs = {kCacheDir};
  options.lora_dirs = {kGoldenDir};
  options.simulate_devices = "cuda:0=6GiB,cuda:1=6GiB,cuda:2=6GiB";
  options.compute_dtype = "fp32";
  return options;
}

class PlacedExecutionTest : public testing::TestWithParam<const char*> {
 protected:
  PlacedExecutionTest() : golden_(kGoldenDir + "/" + GetParam()) {
    const auto path = GoldenCheckpoint(kGoldenDir, GetParam(), kCacheDir);
    EXPECT_TRUE(path.ok()) << path.status();
    ckpt_name_ = path->substr(path->rfind('/') + 1);
    Start(Options());
  }

  void Start(const CoreOptions& options) {
    core_.reset();
    auto core = DaemonCore::Create(options, nullptr);
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    client_ = std::make_unique<CoreClient>(core_.get());
  }

  LoadSpec Spec(const std::string& execution) const {
    LoadSpec spec;
    spec.ckpt_name = ckpt_name_;
    spec.unet_compute_device = spec.vae_device = "cuda:0";
    spec.clip_compute_device = "cpu";
    spec.unet_expert_mode_allocations = "cuda:0,30%;cuda:1,30%;cuda:2,20%;cpu,20%";
    if (!execution.empty()) spec.execution = execution;
    return spec;
  }
  LoadResult Load(const LoadSpec& spec) {
    const auto loaded = client_->Load(spec);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *loaded : LoadResult();
  }
  HostTensor Denoise(const LoadResult& loaded) {
    const auto& item = golden_.cases()["denoise"][0];
    const auto encoded = client_->EncodeText(
        {loaded.clip, golden_.cases()["prompts"][item["prompt"].get<size_t>()]["text"]});
    EXPECT_TRUE(encoded.ok()) << encoded.status();
    DenoiseSpec spec;
    spec.model = loaded.model;
    spec.x = golden_.Expected("denoise.0.x");
    spec.sigma = {item["sigma"].get<double>()};
    spec.conditioning = encoded->conditioning;
    const auto denoised = client_->Denoise(spec);
    EXPECT_TRUE(denoised.ok()) << denoised.status();
    return denoised.ok() ? *denoised : HostTensor();
  }
  // What crossed links between accelerators so far.
  int64_t CrossedBytes() {
    int64_t bytes = 0;
    for (const LinkInfo& link : core_->Links()) {
      if (link.from != "cpu" && link.to != "cpu") bytes += link.bytes;
    }
    return bytes;
  }

  const GoldenCase golden_;
  std::string ckpt_name_;
  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
};

TEST_P(PlacedExecutionTest, HoldersGiveTheSameBitsAndMoveActivationsInsteadOfWeights) {
  const LoadResult computed = Load(Spec("compute"));
  EXPECT_TRUE(computed.placement[0].units.empty());
  const HostTensor expected = Denoise(computed);
  EXPECT_LE(RelativeError(expected, golden_.Expected("denoise.0.denoised")), kDenoisedTolerance);
  const int64_t weights = CrossedBytes();

  const LoadResult held = Load(Spec("holder"));
  EXPECT_NE(held.model, computed.model);
  EXPECT_EQ(held.clip, computed.clip);
  const std::map<std::string, int>& units = held.placement[0].units;
  EXPECT_GT(units.at("cuda:1"), 0);
  EXPECT_FALSE(units.contains("cpu"));
  EXPECT_EQ(Denoise(held).data, expected.data);
  EXPECT_GT(CrossedBytes(), weights);  // activations are counted
  EXPECT_LT(CrossedBytes() - weights, weights);
}

TEST_P(PlacedExecutionTest, TheServersChoiceHoldsForLoadsWithoutOne) {
  const LoadResult asked = Load(Spec("holder")), computed = Load(Spec(""));
  EXPECT_EQ(Load(Spec("compute")).model, computed.model);
  CoreOptions options = Options();
  options.execution = "holder";
  Start(options);
  EXPECT_EQ(Load(Spec("")).model, asked.model);
}

INSTANTIATE_TEST_SUITE_P(Families, PlacedExecutionTest,
                         testing::Values("sd1", "sdxl", "sd3", "flux"),
                         [](const auto& info) { return std::string(info.param); });

using PlacedAdapterTest = PlacedExecutionTest;

TEST_P(PlacedAdapterTest, AdaptersFollowTheirWeights) {
  std::string expected;
  for (const std::string execution : {"compute", "holder"}) {
    LoadResult loaded = Load(Spec(execution));
    const auto adapted = client_->ApplyLora(
        {loaded.model, "", std::string(GetParam()) + "/lora.safetensors", 0.8, 0});
    ASSERT_TRUE(adapted.ok()) << adapted.status();
    loaded.model = adapted->model;
    const std::string denoised = Denoise(loaded).data;
    if (expected.empty()) expected = denoised;
    EXPECT_EQ(denoised, expected) << execution;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, PlacedAdapterTest, testing::Values("sd1"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ExecutionOptionTest, SaysWhatIsAllowed) {
  CoreOptions options = Options();
  options.execution = "everywhere";
  const auto core = DaemonCore::Create(options, nullptr);
  EXPECT_EQ(core.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(core.status().message()), HasSubstr("--execution: \"everywhere\""));
}

}  // namespace
}  // namespace distorch
