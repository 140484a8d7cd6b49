// Adapters of every kind and naming against the reference's samples, through the core: on the CPU,
// and on a split over simulated devices, where float32 must give the same bits. One list of
// families; adding one adds its name here.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_case.h"
#include "tests/support/golden_checkpoint.h"

namespace distorch {
namespace {

// Relative to the largest magnitude (tests/golden/README.md).
constexpr double kSampleTolerance = 2e-4;

const std::string kGoldenDir = DISTORCH_GOLDEN_DIR;
const std::string kCacheDir = DISTORCH_GOLDEN_CACHE;

DaemonCore& Core() {
  static DaemonCore* const core = [] {
    CoreOptions options;
    options.checkpoint_dirs = {kCacheDir};
    options.lora_dirs = {kGoldenDir};
    options.simulate_devices = "cuda:0=6GiB,cuda:1=6GiB";
    options.compute_dtype = "fp32";
    auto created = DaemonCore::Create(options, nullptr);
    EXPECT_TRUE(created.ok()) << created.status();
    return created->release();
  }();
  return *core;
}

struct AdapterCase {
  std::string expected;  // the tensor's name
  ApplyLoraSpec lora;
  int patched = -1;  // parameters that the reference patches; -1: not known
  std::string positive, negative;
  bool negative_patched = false;  // the negative prompt goes through the patched encoder, too
  nlohmann::json sampling;
};

class AdapterGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  // The cases of FAMILY/cases.json and FAMILY/extras/cases.json.
  static std::vector<AdapterCase> Cases(const std::string& family, const GoldenCase& golden,
                                        const GoldenCase& extras) {
    std::vector<AdapterCase> cases;
    const auto& prompts = golden.cases()["prompts"];
    for (const auto& item : golden.cases()["sample"]) {
      const std::string name = item["name"];
      if (name != "with_lora" && name != "with_dora") continue;
      AdapterCase adapter;
      adapter.expected = "sample." + name;
      adapter.lora.lora_name = family + "/" + name.substr(5) + ".safetensors";
      adapter.lora.strength_model = adapter.lora.strength_clip = 0.8;
      adapter.positive = prompts[item["pos"].get<size_t>()]["text"];
      adapter.negative = prompts[item["neg"].get<size_t>()]["text"];
      adapter.negative_patched = true;
      adapter.sampling = item;
      cases.push_back(std::move(adapter));
    }
    for (const auto& item : extras.cases()) {
      const std::string name = item["name"];
      if (!absl::StartsWith(name, "adapter.")) continue;
      const std::string note = item["note"];
      std::smatch found;
      EXPECT_TRUE(std::regex_search(
          note, found,
          std::regex("strength_model ([0-9.]+), strength_clip ([0-9.]+).*patches ([0-9]+) model, "
                     "([0-9]+) text")));
      AdapterCase adapter;
      adapter.expected = "sample." + name;
      adapter.lora.lora_name = family + "/extras/" + name.substr(8) + ".safetensors";
      adapter.lora.strength_model = std::stod(found[1]);
      adapter.lora.strength_clip = std::stod(found[2]);
      adapter.patched = std::stoi(found[3]) + std::stoi(found[4]);
      adapter.positive = item["positive"];
      adapter.negative = item["negative"];
      adapter.sampling = item;
      cases.push_back(std::move(adapter));
    }
    return cases;
  }

  HostTensor Sample(const LoadResult& loaded, const AdapterCase& adapter) {
    ApplyLoraSpec lora = adapter.lora;
    lora.model = loaded.model;
    lora.clip = loaded.clip;
    const auto applied = client_.ApplyLora(lora);
    EXPECT_TRUE(applied.ok()) << applied.status();
    if (!applied.ok()) return {};
    if (adapter.patched >= 0) {
      EXPECT_EQ(applied->patched, adapter.patched);
    }
    EXPECT_NE(applied->model, loaded.model);
    EXPECT_NE(applied->clip, loaded.clip);

    const auto positive = client_.EncodeText({applied->clip, adapter.positive});
    const auto negative = client_.EncodeText(
        {adapter.negative_patched ? applied->clip : loaded.clip, adapter.negative});
    EXPECT_TRUE(positive.ok()) << positive.status();
    EXPECT_TRUE(negative.ok()) << negative.status();
    if (!positive.ok() || !negative.ok()) return {};
    SampleSpec spec;
    spec.model = applied->model;
    spec.positive.id = positive->conditioning_id;
    spec.negative.id = negative->conditioning_id;
    spec.options.seed = adapter.sampling["seed"];
    spec.options.steps = adapter.sampling["steps"];
    spec.options.cfg = adapter.sampling["cfg"];
    spec.options.sampler_name = adapter.sampling["sampler"];
    spec.options.scheduler = adapter.sampling["scheduler"];
    spec.options.denoise = adapter.sampling["denoise"];
    spec.latent.shape = adapter.sampling["shape"].get<std::vector<int64_t>>();
    size_t count = 1;
    for (int64_t dim : spec.latent.shape) count *= static_cast<size_t>(dim);
    spec.latent.data.assign(count * sizeof(float), '\0');
    const auto sample = client_.Sample(spec);
    EXPECT_TRUE(sample.ok()) << sample.status();

    UnloadSpec unload;
    unload.handles = {applied->model, applied->clip};
    EXPECT_TRUE(client_.Unload(unload).ok());
    return sample.ok() ? *sample : HostTensor();
  }

  CoreClient client_{&Core()};
};

TEST_P(AdapterGoldenTest, EqualsTheReferenceOnEveryPlacementAndPlacementsAgreeBitForBit) {
  const std::string family = GetParam();
  const auto path = GoldenCheckpoint(kGoldenDir, family, kCacheDir);
  ASSERT_TRUE(path.ok()) << path.status();
  const GoldenCase golden(kGoldenDir + "/" + family);
  const GoldenCase extras(kGoldenDir + "/" + family + "/extras");
  const std::vector<AdapterCase> cases = Cases(family, golden, extras);
  ASSERT_GT(cases.size(), 6u);

  LoadSpec spec;
  spec.ckpt_name = path->substr(path->rfind('/') + 1);
  std::map<std::string, std::string> first;
  for (const bool split : {false, true}) {
    SCOPED_TRACE(split ? "split" : "cpu");
    spec.unet_compute_device = spec.clip_compute_device = split ? "cuda:0" : "cpu";
    spec.unet_expert_mode_allocations = split ? "cuda:0,40%;cuda:1,20%;cpu,20%;disk,20%" : "";
    spec.clip_expert_mode_allocations = split ? "cuda:0,20%;cuda:1,50%;cpu,30%" : "";
    const auto loaded = client_.Load(spec);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    for (const AdapterCase& adapter : cases) {
      SCOPED_TRACE(adapter.lora.lora_name);
      const HostTensor sample = Sample(*loaded, adapter);
      const GoldenCase& source = golden.Has(adapter.expected) ? golden : extras;
      EXPECT_LE(RelativeError(sample, source.Expected(adapter.expected)), kSampleTolerance);
      if (!split) first[adapter.expected] = sample.data;
      EXPECT_EQ(sample.data, first[adapter.expected]) << "differs from the CPU's";
    }
  }
  ASSERT_TRUE(client_.UnloadAll().ok());
}

INSTANTIATE_TEST_SUITE_P(Families, AdapterGoldenTest, testing::Values("sd1", "sdxl", "sd3", "flux"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace distorch
