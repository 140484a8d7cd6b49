#include "tests/lib/serving/placed_fixture.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/support/golden_checkpoint.h"

namespace distorch {
namespace {

const char* const kGoldenDir = DISTORCH_GOLDEN_DIR;

}  // namespace

PlacedFixture::PlacedFixture(const std::string& family)
    : golden_(absl::StrCat(kGoldenDir, "/", family)) {
  const auto path = GoldenCheckpoint(kGoldenDir, family, DISTORCH_GOLDEN_CACHE);
  EXPECT_TRUE(path.ok()) << path.status();
  if (path.ok()) ckpt_name_ = path->substr(path->rfind('/') + 1);
}

CoreOptions PlacedFixture::Options(const std::string& simulate_devices) const {
  CoreOptions options;
  options.checkpoint_dirs = {DISTORCH_GOLDEN_CACHE};
  options.lora_dirs = {kGoldenDir};
  options.simulate_devices = simulate_devices;
  options.compute_dtype = "fp32";
  return options;
}

void PlacedFixture::Start(const CoreOptions& options, Observer* observer) {
  client_.reset();
  core_.reset();
  auto core = DaemonCore::Create(options, observer);
  if (!core.ok()) {
    ADD_FAILURE() << core.status();
    std::abort();
  }
  core_ = *std::move(core);
  client_ = std::make_unique<CoreClient>(core_.get());
}

LoadSpec PlacedFixture::Spec(const std::string& split, const std::string& execution) const {
  LoadSpec spec;
  spec.ckpt_name = ckpt_name_;
  spec.unet_compute_device = "cuda:0";
  spec.clip_compute_device = spec.vae_device = "cpu";
  if (!split.empty()) spec.unet_expert_mode_allocations = split;
  if (!execution.empty()) spec.execution = execution;
  return spec;
}

LoadResult PlacedFixture::Load(const LoadSpec& spec) {
  const auto loaded = client_->Load(spec);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? *loaded : LoadResult();
}

std::string PlacedFixture::Denoise(const LoadResult& loaded) {
  const auto& item = golden_.cases()["denoise"][0];
  const auto encoded = client_->EncodeText(
      {loaded.clip, golden_.cases()["prompts"][item["prompt"].get<size_t>()]["text"]});
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  if (!encoded.ok()) return "";
  DenoiseSpec spec;
  spec.model = loaded.model;
  spec.x = golden_.Expected("denoise.0.x");
  spec.sigma = {item["sigma"].get<double>()};
  spec.conditioning = encoded->conditioning;
  const auto denoised = client_->Denoise(spec);
  EXPECT_TRUE(denoised.ok()) << denoised.status();
  return denoised.ok() ? denoised->data : "";
}

void PlacedFixture::Sample(const LoadResult& loaded, int steps) {
  const auto encoded = client_->EncodeText({loaded.clip, "a fox"});
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  SampleSpec spec;
  spec.model = loaded.model;
  spec.positive.id = spec.negative.id = encoded->conditioning_id;
  const HostTensor like = golden_.Expected("denoise.0.x");
  spec.latent.shape = {1, like.shape[1], 8, 8};
  spec.latent.data.assign(static_cast<size_t>(like.shape[1]) * 64 * sizeof(float), '\0');
  spec.options.steps = steps;
  spec.options.cfg = 4;
  spec.options.sampler_name = "euler";
  spec.options.scheduler = "normal";
  const auto sampled = client_->Sample(spec);
  EXPECT_TRUE(sampled.ok()) << sampled.status();
}

}  // namespace distorch
