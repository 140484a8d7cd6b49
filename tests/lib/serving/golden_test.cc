// The reference's results for whole small checkpoints, through the core: on the CPU, and on splits
// over simulated devices, where float32 must give the same bits. One list of families; adding one
// adds its name here.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_case.h"
#include "tests/support/golden_checkpoint.h"

namespace distorch {
namespace {

// Relative to the largest magnitude (tests/golden/README.md).
constexpr double kTextTolerance = 1e-5, kDenoisedTolerance = 2e-5, kVaeTolerance = 5e-5,
                 kSampleTolerance = 2e-4;

const std::string kCacheDir = DISTORCH_GOLDEN_CACHE;

DaemonCore& Core() {
  static DaemonCore* const core = [] {
    CoreOptions options;
    options.checkpoint_dirs = {kCacheDir, DISTORCH_DEMO_DIR};
    options.simulate_devices = "cuda:0=6GiB,cuda:1=6GiB";
    options.compute_dtype = "fp32";
    auto created = DaemonCore::Create(options, nullptr);
    EXPECT_TRUE(created.ok()) << created.status();
    return created->release();
  }();
  return *core;
}

struct PlacementCase {
  std::string name, unet_compute, clip_compute, vae, unet_split, clip_split;
};
const PlacementCase kPlacements[] = {
    {"cpu", "cpu", "cpu", "cpu", "", ""},
    {"everywhere", "cuda:0", "cuda:1", "cuda:1", "cuda:0,30%;cuda:1,25%;cpu,25%;disk,20%",
     "cuda:0,20%;cuda:1,40%;cpu,20%;disk,20%"},
};

LoadSpec SpecFor(const std::string& ckpt_name, const PlacementCase& placement) {
  LoadSpec spec;
  spec.ckpt_name = ckpt_name;
  spec.unet_compute_device = placement.unet_compute;
  spec.clip_compute_device = placement.clip_compute;
  spec.vae_device = placement.vae;
  spec.unet_expert_mode_allocations = placement.unet_split;
  spec.clip_expert_mode_allocations = placement.clip_split;
  return spec;
}

SamplingOptions OptionsOf(const nlohmann::json& item) {
  SamplingOptions options;
  options.seed = item["seed"];
  options.steps = item["steps"];
  options.cfg = item["cfg"];
  options.sampler_name = item["sampler"];
  options.scheduler = item["scheduler"];
  options.denoise = item["denoise"];
  return options;
}

HostTensor EmptyLatent(const std::vector<int64_t>& shape) {
  HostTensor latent;
  latent.shape = shape;
  size_t count = 1;
  for (int64_t dim : shape) count *= static_cast<size_t>(dim);
  latent.data.assign(count * sizeof(float), '\0');
  return latent;
}

// adapter_golden_test has these.
bool IsAdapterCase(std::string_view name) {
  return absl::StrContains(name, "with_lora") || absl::StrContains(name, "with_dora");
}

// What a case starts from, as opposed to what it must give.
bool IsInput(std::string_view name) {
  return absl::EndsWith(name, ".x") || name == "vae.image" || absl::StartsWith(name, "vae.latent");
}

// What float32 does not give twice, not even the reference's: zero_snr_golden_test has it in
// float64. All samples of sdxl_v but those that do not start at its first noise level.
bool NeedsFloat64(std::string_view family, std::string_view name) {
  return family == "sdxl_v" && absl::StartsWith(name, "sample.") && name != "sample.img2img" &&
         name != "sample.advanced";
}

// Everything a family's cases ask for, by the name of the expected tensor.
class Outputs {
 public:
  Outputs(const GoldenCase& golden, const LoadResult& loaded)
      : golden_(golden), loaded_(loaded), client_(&Core()) {
    EncodePrompts();
    Denoise();
    RunVae();
    SampleAll();
  }

  const std::map<std::string, HostTensor>& all() const { return outputs_; }

 private:
  template <typename T>
  T Value(const std::string& name, absl::StatusOr<T> result) {
    EXPECT_TRUE(result.ok()) << name << ": " << result.status();
    return result.ok() ? *std::move(result) : T();
  }

  void EncodePrompts() {
    const auto& prompts = golden_.cases()["prompts"];
    for (size_t i = 0; i < prompts.size(); ++i) {
      const std::string n = std::to_string(i);
      EncodeTextResult result =
          Value("cond." + n, client_.EncodeText({loaded_.clip, prompts[i]["text"]}));
      ids_.push_back(result.conditioning_id);
      conditionings_.push_back(result.conditioning);
      outputs_["cond." + n] = result.conditioning.cross_attention;
      outputs_["pooled." + n] = result.conditioning.pooled.value_or(HostTensor());
    }
    if (!golden_.Has("cond.clip_skip2")) return;
    const std::string skipped = Value("clip_skip2", Core().SetClipSkip(loaded_.clip, -2));
    outputs_["cond.clip_skip2"] =
        Value("clip_skip2", client_.EncodeText({skipped, prompts[0]["text"]}))
            .conditioning.cross_attention;
  }

  void Denoise() {
    const auto& cases = golden_.cases();
    for (size_t i = 0; cases.contains("denoise") && i < cases["denoise"].size(); ++i) {
      const std::string name = "denoise." + std::to_string(i);
      DenoiseSpec spec;
      spec.model = loaded_.model;
      spec.x = golden_.Expected(name + ".x");
      spec.sigma = {cases["denoise"][i]["sigma"].get<double>()};
      spec.conditioning = conditionings_[cases["denoise"][i]["prompt"].get<size_t>()];
      outputs_[name + ".denoised"] = Value(name, client_.Denoise(spec));
    }
  }

  void RunVae() {
    for (const auto& [latent, decoded] : {std::pair{"vae.latent", "vae.decoded"},
                                          std::pair{"vae.latent_wide", "vae.decoded_wide"}}) {
      if (!golden_.Has(latent)) continue;
      DecodeLatentSpec spec;
      spec.vae = loaded_.vae;
      spec.latent = golden_.Expected(latent);
      outputs_[decoded] = Value(decoded, client_.Decode(spec)).images;
    }
    if (!golden_.Has("vae.image")) return;
    EncodeImageSpec spec;
    spec.vae = loaded_.vae;
    spec.pixels = golden_.Expected("vae.image");
    outputs_["vae.encoded"] = Value("vae.encoded", client_.EncodeImage(spec));
  }

  void SampleAll() {
    for (const auto& item : golden_.cases()["sample"]) {
      const std::string name = "sample." + item["name"].get<std::string>();
      if (IsAdapterCase(name)) continue;
      outputs_[name] = Value(name, client_.Sample(SpecOf(item)));
    }
  }

  SampleSpec SpecOf(const nlohmann::json& item) const {
    SampleSpec spec;
    spec.model = loaded_.model;
    spec.positive.id = ids_[item["pos"].get<size_t>()];
    spec.negative.id = ids_[item["neg"].get<size_t>()];
    spec.options = OptionsOf(item);
    if (item.contains("start_step")) spec.options.start_step = item["start_step"].get<int>();
    if (item.contains("last_step")) spec.options.end_step = item["last_step"].get<int>();
    if (item.contains("force_full_denoise"))
      spec.options.force_full_denoise = item["force_full_denoise"].get<bool>();
    if (item.contains("image") && item["image"].is_string()) {
      spec.latent = golden_.Expected(item["image"]);
    } else {
      spec.latent = EmptyLatent(item["shape"]);
    }
    return spec;
  }

  const GoldenCase& golden_;
  const LoadResult& loaded_;
  CoreClient client_;
  std::vector<std::string> ids_;
  std::vector<HostConditioning> conditionings_;
  std::map<std::string, HostTensor> outputs_;
};

double ToleranceOf(const std::string& name) {
  if (absl::StartsWith(name, "sample.")) return kSampleTolerance;
  if (absl::StartsWith(name, "vae.")) return kVaeTolerance;
  if (absl::StartsWith(name, "denoise.")) return kDenoisedTolerance;
  return kTextTolerance;
}

class FamilyGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(FamilyGoldenTest, EqualsTheReferenceOnEveryPlacementAndPlacementsAgreeBitForBit) {
  const std::string family = GetParam();
  const auto path = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, family, kCacheDir);
  ASSERT_TRUE(path.ok()) << path.status();
  const GoldenCase golden(std::string(DISTORCH_GOLDEN_DIR) + "/" + family);
  const std::string ckpt_name = path->substr(path->rfind('/') + 1);
  CoreClient client(&Core());

  std::map<std::string, HostTensor> first;
  for (const PlacementCase& placement : kPlacements) {
    SCOPED_TRACE(placement.name);
    const auto loaded = client.Load(SpecFor(ckpt_name, placement));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const Outputs outputs(golden, *loaded);
    for (const std::string& name : golden.names()) {
      if (IsInput(name) || IsAdapterCase(name)) continue;
      ASSERT_TRUE(outputs.all().contains(name)) << name << " was not computed";
      const HostTensor& actual = outputs.all().at(name);
      if (!NeedsFloat64(family, name)) {
        EXPECT_LE(RelativeError(actual, golden.Expected(name)), ToleranceOf(name)) << name;
      }
      if (first.contains(name)) {
        EXPECT_EQ(actual.data, first[name].data)
            << name << " differs from placement " << kPlacements[0].name;
      }
    }
    if (first.empty()) first = outputs.all();
  }
  ASSERT_TRUE(client.UnloadAll().ok());
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyGoldenTest,
                         testing::Values("sd15_full", "sd1", "sd1_inpaint", "sd2", "sd2_v", "sdxl",
                                         "sdxl_v", "sdxl_refiner", "sd3", "sd35", "flux",
                                         "flux_schnell"),
                         [](const auto& info) { return std::string(info.param); });

// The case `name` of FAMILY/extras, on a split; `adapt` makes of the plain request what the case is
// about.
template <typename Adapt>
void ExpectExtra(const std::string& family, const std::string& name, Adapt adapt) {
  SCOPED_TRACE(name);
  const std::string golden_dir = DISTORCH_GOLDEN_DIR;
  const auto path = GoldenCheckpoint(golden_dir, family, kCacheDir);
  ASSERT_TRUE(path.ok()) << path.status();
  const GoldenCase golden(golden_dir + "/" + family + "/extras");
  const auto item = std::find_if(golden.cases().begin(), golden.cases().end(),
                                 [&](const auto& c) { return c["name"] == name; });
  ASSERT_NE(item, golden.cases().end());
  CoreClient client(&Core());
  const auto loaded = client.Load(SpecFor(path->substr(path->rfind('/') + 1), kPlacements[1]));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto positive = client.EncodeText({loaded->clip, (*item)["positive"]});
  const auto negative = client.EncodeText({loaded->clip, (*item)["negative"]});
  ASSERT_TRUE(positive.ok() && negative.ok());
  SampleSpec spec;
  spec.model = loaded->model;
  spec.positive.value = positive->conditioning;
  spec.negative.value = negative->conditioning;
  spec.latent = EmptyLatent((*item)["shape"]);
  spec.options = OptionsOf(*item);
  adapt(spec);
  const auto latent = client.Sample(spec);
  ASSERT_TRUE(latent.ok()) << latent.status();
  EXPECT_LE(RelativeError(*latent, golden.Expected("sample." + name)), kSampleTolerance);
  ASSERT_TRUE(client.UnloadAll().ok());
}

// Flux is told of a guidance strength: 3.5, or the request's.
TEST(FluxGuidanceTest, EqualsTheReference) {
  ExpectExtra("flux", "plain", [](SampleSpec&) {});
  ExpectExtra("flux", "guidance", [](SampleSpec& spec) { spec.options.guidance = 7.5; });
}

// SDXL is told of sizes: the latent's in pixels, or the conditioning's.
TEST(SizeConditioningTest, EqualsTheReference) {
  ExpectExtra("sdxl", "plain", [](SampleSpec&) {});
  ExpectExtra("sdxl", "size_conditioning", [](SampleSpec& spec) {
    spec.positive.value->size = {.width = 1024,
                                 .height = 768,
                                 .crop_w = 16,
                                 .crop_h = 8,
                                 .target_width = 512,
                                 .target_height = 640};
  });
}

// The checkpoint of deploy/demo, as the quick start uses it.
TEST(DemoTest, DrawsTheReferencesPicture) {
  constexpr double kImageTolerance = 1e-3;
  const GoldenCase golden(DISTORCH_DEMO_DIR);
  CoreClient client(&Core());
  const auto loaded = client.Load(SpecFor("shapes-sd1.safetensors", kPlacements[1]));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  for (size_t i = 0; i < golden.cases().size(); ++i) {
    const auto& item = golden.cases()[i];
    const std::string n = std::to_string(i);
    const auto positive = client.EncodeText({loaded->clip, item["prompt"]});
    const auto negative = client.EncodeText({loaded->clip, item["negative"]});
    ASSERT_TRUE(positive.ok() && negative.ok());
    EXPECT_LE(RelativeError(positive->conditioning.cross_attention, golden.Expected("cond." + n)),
              kTextTolerance);

    SampleSpec sample;
    sample.model = loaded->model;
    sample.positive.id = positive->conditioning_id;
    sample.negative.id = negative->conditioning_id;
    sample.latent.shape = {1, 4, item["height"].get<int>() / 8, item["width"].get<int>() / 8};
    sample.latent.data.assign(
        static_cast<size_t>(4 * sample.latent.shape[2] * sample.latent.shape[3]) * 4, '\0');
    sample.options.seed = item["seed"];
    sample.options.steps = item["steps"];
    sample.options.cfg = item["cfg"];
    sample.options.sampler_name = item["sampler"];
    sample.options.scheduler = item["scheduler"];
    const auto latent = client.Sample(sample);
    ASSERT_TRUE(latent.ok()) << latent.status();
    EXPECT_LE(RelativeError(*latent, golden.Expected("latent." + n)), kSampleTolerance) << n;

    DecodeLatentSpec decode;
    decode.vae = loaded->vae;
    decode.latent = *latent;
    const auto image = client.Decode(decode);
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_LE(RelativeError(image->images, golden.Expected("image." + n)), kImageTolerance) << n;
  }
  ASSERT_TRUE(client.UnloadAll().ok());
}

}  // namespace
}  // namespace distorch
