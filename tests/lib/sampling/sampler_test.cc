// Every sampler against the reference, on denoisers that are formulas;
// tests/golden/samplers/README.md says which.
#include "lib/sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "lib/sampling/noise.h"
#include "lib/sampling/sample.h"
#include "nlohmann/json.hpp"

namespace distorch::sampling {
namespace {

// Relative to the largest magnitude of the result; cases that amplify rounding state their own.
constexpr double kTolerance = 1e-5;

const std::string kFolder = DISTORCH_GOLDEN_DIR "/samplers/";

std::string ReadFile(const std::string& name) {
  std::ifstream file(kFolder + name, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

// Float32 tensors of the fixture, a safetensors file.
const std::map<std::string, at::Tensor>& Tensors() {
  static const std::map<std::string, at::Tensor> tensors = [] {
    const std::string bytes = ReadFile("expected.safetensors");
    uint64_t header_size = 0;
    std::memcpy(&header_size, bytes.data(), sizeof(header_size));
    const auto header = nlohmann::json::parse(bytes.substr(8, header_size));
    std::map<std::string, at::Tensor> result;
    for (const auto& [name, info] : header.items()) {
      at::Tensor tensor = at::empty(info["shape"].get<std::vector<int64_t>>(), at::kFloat);
      std::memcpy(tensor.data_ptr(),
                  bytes.data() + 8 + header_size + info["data_offsets"][0].get<size_t>(),
                  tensor.nbytes());
      result[name] = tensor;
    }
    return result;
  }();
  return tensors;
}

const std::vector<nlohmann::json>& Cases() {
  static const std::vector<nlohmann::json> cases = nlohmann::json::parse(ReadFile("cases.json"));
  return cases;
}

ModelSampling SamplingOf(const std::string& name) {
  if (name == "discrete_v_zsnr")
    return ModelSampling({.prediction = Prediction::kV, .zero_terminal_snr = true});
  if (name == "flow_shift3") {
    return ModelSampling(
        {.prediction = Prediction::kFlow, .levels = NoiseLevels::kDiscreteFlow, .shift = 3});
  }
  return ModelSampling({});
}

// uncond: the best prediction for data of unit variance; cond: something not linear.
GuidedModel Formulas(double cfg, const std::string& sampler, int& evaluations) {
  return ClassifierFreeGuidance(
      [&evaluations](const at::Tensor& x, double sigma,
                     bool with_uncond) -> absl::StatusOr<Predictions> {
        ++evaluations;
        const float s = static_cast<float>(sigma), variance = 1 + s * s;
        return Predictions{.cond = (x * 1.2 / variance).tanh_().add_(0.2),
                           .uncond = with_uncond ? x / variance : at::Tensor()};
      },
      cfg, SamplerNeedsUncond(sampler));
}

class SamplerGoldenTest : public testing::TestWithParam<nlohmann::json> {};

TEST_P(SamplerGoldenTest, IsTheReferences) {
  const nlohmann::json& spec = GetParam();
  SampleArgs args{.seed = spec["seed"],
                  .steps = spec["steps"],
                  .sampler_name = spec["sampler"],
                  .scheduler = spec["scheduler"],
                  .denoise = spec.value("denoise", 1.0),
                  .add_noise = spec.value("add_noise", true),
                  .force_full_denoise = spec.value("force_full_denoise", false),
                  .sigmas = spec.value("sigmas", std::vector<double>())};
  if (spec.contains("start_step")) args.start_step = spec["start_step"];
  if (spec.contains("end_step")) args.end_step = spec["end_step"];
  const at::Tensor image = Tensors().at("image");
  const at::Tensor latent = spec.value("image", false) ? image : at::zeros_like(image);
  std::optional<at::Tensor> mask;
  if (spec.value("mask", false)) mask = Tensors().at("mask");

  int evaluations = 0, steps_reported = 0;
  const auto result = Sample(
      SamplingOf(spec["sampling"]), Formulas(spec["cfg"], args.sampler_name, evaluations), latent,
      std::nullopt, mask, args, [&](int step, int steps, const at::Tensor&, const at::Tensor&) {
        EXPECT_LE(step, steps);
        steps_reported = step;
        return absl::OkStatus();
      });
  ASSERT_TRUE(result.ok()) << result.status();
  const at::Tensor expected = Tensors().at(spec["name"]);
  ASSERT_EQ(result->sizes(), expected.sizes());
  const double error = ((*result - expected).abs().max() / expected.abs().max()).item<double>();
  EXPECT_LE(error, spec.value("tolerance", kTolerance));
  EXPECT_EQ(evaluations, spec["evaluations"].get<int>());
  const size_t levels = SigmasFor(SamplingOf(spec["sampling"]), args)->size();
  if (args.sampler_name != "dpm_adaptive") {
    EXPECT_EQ(steps_reported, levels == 0 ? 0 : static_cast<int>(levels) - 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SamplerGoldenTest, testing::ValuesIn(Cases()),
                         [](const auto& info) {
                           std::string name = info.param["name"];
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

TEST(SamplerTest, TheFixtureHoldsEverySampler) {
  std::set<std::string> names;
  for (const auto& spec : Cases()) names.insert(spec["sampler"]);
  for (std::string_view name : SamplerNames())
    EXPECT_TRUE(names.contains(std::string(name))) << name;
  EXPECT_EQ(names.size(), SamplerNames().size());
}

TEST(SamplerTest, UnknownNameIsTheField) {
  const auto sampler = FindSampler("eular");
  EXPECT_EQ(sampler.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(sampler.status().message()),
              testing::HasSubstr("sampler_name: unknown 'eular'; allowed: euler, euler_cfg_pp"));
}

// For data of unit variance the probability flow ODE scales x by the ratio of standard deviations:
// solvers of order 2 and more must come close to it with few steps.
TEST(SamplerTest, DeterministicSamplersSolveTheGaussianOde) {
  const ModelSampling sampling({});
  const at::Tensor latent = at::zeros({1, 1, 4, 4});
  const GuidedModel gaussian = [](const at::Tensor& x, double sigma) -> absl::StatusOr<Denoised> {
    return Denoised{.guided = x / (1 + sigma * sigma), .uncond = {}};
  };
  for (const char* name : {"heun", "dpm_2", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2m", "ipndm",
                           "ipndm_v", "deis", "res_multistep", "uni_pc", "uni_pc_bh2"}) {
    const auto result =
        Sample(sampling, gaussian, latent, std::nullopt, std::nullopt,
               {.seed = 3, .steps = 40, .sampler_name = name, .scheduler = "karras"}, nullptr);
    ASSERT_TRUE(result.ok()) << result.status();
    const at::Tensor exact = PrepareNoise(latent.sizes(), 3);
    EXPECT_LE((*result - exact).abs().max().item<double>(), 0.05) << name;
  }
}

TEST(SamplerTest, OneStepDenoisesWhateverTheSampler) {
  const ModelSampling sampling({});
  const at::Tensor latent = at::zeros({1, 1, 4, 4});
  for (std::string_view name : SamplerNames()) {
    int evaluations = 0;
    const auto result =
        Sample(sampling, Formulas(2, std::string(name), evaluations), latent, std::nullopt,
               std::nullopt, {.seed = 3, .steps = 1, .sampler_name = std::string(name)}, nullptr);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_LE(result->abs().max().item<double>(), 3) << name;
    EXPECT_GE(evaluations, 1) << name;
  }
}

TEST(SamplerTest, TellsHowOftenAStepEvaluatesTheModel) {
  for (std::string_view name : SamplerNames()) {
    int evaluations = 0, before = 0;
    const int told = (*FindSampler(name))->evaluations;
    const auto result = Sample(
        ModelSampling({}), Formulas(2, std::string(name), evaluations), at::zeros({1, 1, 4, 4}),
        std::nullopt, std::nullopt, {.seed = 3, .steps = 6, .sampler_name = std::string(name)},
        [&](int step, int steps, const at::Tensor&, const at::Tensor&) {
          if (told > 0 && step > 1 && step < steps) {
            EXPECT_EQ(evaluations - before, told) << name << " in step " << step;
          }
          before = evaluations;
          return absl::OkStatus();
        });
    EXPECT_TRUE(result.ok()) << result.status();
  }
}

}  // namespace
}  // namespace distorch::sampling
