#include "lib/sampling/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lib/sampling/noise.h"

namespace distorch::sampling {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

absl::StatusOr<Denoised> Gaussian(const at::Tensor& x, double sigma) {
  const at::Tensor denoised = x / (1 + sigma * sigma);
  return Denoised{.guided = denoised, .uncond = denoised};
}

at::Tensor Latent() { return at::linspace(-1, 1, 2 * 4 * 3 * 5).reshape({2, 4, 3, 5}); }

absl::StatusOr<at::Tensor> SampleLatent(const SampleArgs& args, const GuidedModel& model = Gaussian,
                                        const StepCallback& on_step = nullptr,
                                        const std::optional<at::Tensor>& noise = std::nullopt,
                                        const std::optional<at::Tensor>& mask = std::nullopt) {
  static const ModelSampling sampling({});
  return Sample(sampling, model, Latent(), noise, mask, args, on_step);
}

std::string ErrorOf(const SampleArgs& args) {
  const absl::Status status = ValidateSampleArgs(args);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SigmasFor(ModelSampling({}), args).status(), status);
  return std::string(status.message());
}

TEST(SampleArgsTest, ErrorsNameTheFieldAndWhatIsAllowed) {
  EXPECT_THAT(ErrorOf({.steps = 0}), HasSubstr("steps: 0; allowed: 1 to 10000"));
  EXPECT_THAT(ErrorOf({.steps = 10001}), HasSubstr("steps: 10001"));
  EXPECT_THAT(ErrorOf({.sampler_name = ""}), HasSubstr("sampler_name: unknown ''"));
  EXPECT_THAT(ErrorOf({.scheduler = "Karras"}), HasSubstr("scheduler: unknown 'Karras'"));
  EXPECT_THAT(ErrorOf({.denoise = 1.5}), HasSubstr("denoise: 1.5; allowed: 0 to 1"));
  EXPECT_THAT(ErrorOf({.denoise = std::nan("")}), HasSubstr("denoise: nan"));
  EXPECT_THAT(ErrorOf({.denoise = 1e-9}), HasSubstr("steps / denoise"));
  EXPECT_THAT(ErrorOf({.start_step = -1}), HasSubstr("start_step: -1; allowed: 0 to 10000"));
  EXPECT_THAT(ErrorOf({.end_step = 10001}), HasSubstr("end_step: 10001"));
  EXPECT_THAT(ErrorOf({.sigmas = {3, 0, 1}}), HasSubstr("sigmas[1]: 0"));
  EXPECT_THAT(ErrorOf({.sigmas = {3, -1}}), HasSubstr("sigmas[1]: -1"));
  EXPECT_THAT(ErrorOf({.sigmas = {std::numeric_limits<double>::infinity(), 0}}),
              HasSubstr("sigmas[0]: inf"));
  EXPECT_THAT(ErrorOf({.sigmas = std::vector<double>(10002, 1.0)}),
              HasSubstr("sigmas: 10002 values"));
}

TEST(SigmasForTest, CutsTheSchedule) {
  const ModelSampling sampling({});
  const std::vector<float> whole = *SigmasFor(sampling, {.steps = 6});
  ASSERT_THAT(whole, SizeIs(7));
  EXPECT_THAT(*SigmasFor(sampling,
                         {.steps = 6, .start_step = 2, .end_step = 4, .force_full_denoise = false}),
              ElementsAre(whole[2], whole[3], whole[4]));
  EXPECT_THAT(*SigmasFor(sampling, {.steps = 6, .start_step = 2, .end_step = 4}),
              ElementsAre(whole[2], whole[3], 0));
  EXPECT_THAT(*SigmasFor(sampling, {.steps = 6, .end_step = 10000}), SizeIs(7));
  for (const auto& [start, end] :
       std::vector<std::pair<int, int>>{{6, 10000}, {10000, 10000}, {3, 3}, {4, 2}, {0, 0}}) {
    EXPECT_THAT(*SigmasFor(sampling, {.steps = 6, .start_step = start, .end_step = end}),
                IsEmpty());
  }
}

TEST(SigmasForTest, PartialDenoiseIsTheTailOfALongerSchedule) {
  const ModelSampling sampling({});
  const std::vector<float> longer = *SigmasFor(sampling, {.steps = 20});
  EXPECT_EQ(*SigmasFor(sampling, {.steps = 5, .denoise = 0.25}),
            std::vector<float>(longer.end() - 6, longer.end()));
  EXPECT_THAT(*SigmasFor(sampling, {.steps = 5, .denoise = 0}), IsEmpty());
}

TEST(SigmasForTest, SomeSamplersSkipTheLastLevelBeforeZero) {
  const ModelSampling sampling({});
  std::vector<float> expected = *SigmasFor(sampling, {.steps = 9});
  expected.erase(expected.end() - 2);
  EXPECT_EQ(*SigmasFor(sampling, {.steps = 8, .sampler_name = "dpm_2"}), expected);
}

TEST(SigmasForTest, OwnSigmasWin) {
  EXPECT_THAT(*SigmasFor(ModelSampling({}),
                         {.steps = -1, .scheduler = "", .denoise = 7, .sigmas = {2, 1, 0.5}}),
              ElementsAre(2, 1, 0.5));
}

TEST(SampleTest, AnErrorOfTheCallbackStopsWithinOneStep) {
  for (std::string_view name : SamplerNames()) {
    SCOPED_TRACE(name);
    int evaluations = 0, after = 0;
    bool stopped = false;
    const auto result = SampleLatent(
        {.steps = 9, .sampler_name = std::string(name)},
        [&](const at::Tensor& x, double sigma) {
          ++evaluations;
          if (stopped) ++after;
          return Gaussian(x, sigma);
        },
        [&](int step, int, const at::Tensor&, const at::Tensor&) {
          if (step < 2) return absl::OkStatus();
          stopped = true;
          return absl::CancelledError("enough");
        });
    EXPECT_EQ(result.status(), absl::CancelledError("enough"));
    EXPECT_EQ(after, 0);
    EXPECT_LE(evaluations, 8);
  }
}

TEST(SampleTest, AnErrorOfTheModelIsPassedOn) {
  for (std::string_view name : SamplerNames()) {
    SCOPED_TRACE(name);
    for (int fails_at : {1, 2, 5}) {
      int evaluations = 0;
      const auto result =
          SampleLatent({.steps = 9, .sampler_name = std::string(name)},
                       [&](const at::Tensor& x, double sigma) -> absl::StatusOr<Denoised> {
                         if (++evaluations == fails_at)
                           return absl::ResourceExhaustedError("cuda:0 is full");
                         return Gaussian(x, sigma);
                       });
      EXPECT_EQ(result.status(), absl::ResourceExhaustedError("cuda:0 is full"));
      EXPECT_EQ(evaluations, fails_at);
    }
  }
}

TEST(SampleTest, ProgressCountsFinishedSteps) {
  std::vector<int> seen;
  ASSERT_TRUE(
      SampleLatent({.steps = 4}, Gaussian,
                   [&](int step, int steps, const at::Tensor& x, const at::Tensor& denoised) {
                     EXPECT_EQ(steps, 4);
                     EXPECT_EQ(x.sizes(), denoised.sizes());
                     seen.push_back(step);
                     return absl::OkStatus();
                   })
          .ok());
  EXPECT_THAT(seen, ElementsAre(1, 2, 3, 4));
}

TEST(SampleTest, GivenNoiseReplacesTheSeeds) {
  const at::Tensor noise = PrepareNoise(Latent().sizes(), 11);
  EXPECT_TRUE(
      at::equal(*SampleLatent({.seed = 1}, Gaussian, nullptr, noise), *SampleLatent({.seed = 11})));
  EXPECT_FALSE(at::equal(*SampleLatent({.seed = 1}), *SampleLatent({.seed = 11})));
  const auto wrong = SampleLatent({}, Gaussian, nullptr, noise.slice(0, 0, 1));
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wrong.status().message()),
              HasSubstr("noise: shape [1, 4, 3, 5]; allowed: the latent's, [2, 4, 3, 5]"));
}

TEST(SampleTest, WhatTheMaskKeepsIsKept) {
  at::Tensor mask = at::zeros({6, 10});
  mask.slice(1, 4, 10).fill_(1);  // 3 of the latent's 5 columns
  for (const char* name : {"euler", "ddim", "dpmpp_2m_sde"}) {
    const at::Tensor sampled =
        *SampleLatent({.sampler_name = name}, Gaussian, nullptr, std::nullopt, mask);
    EXPECT_TRUE(at::allclose(sampled.slice(3, 0, 2), Latent().slice(3, 0, 2), 1e-4, 1e-4)) << name;
    EXPECT_FALSE(at::allclose(sampled.slice(3, 2, 5), Latent().slice(3, 2, 5), 1e-1, 1e-1)) << name;
  }
  const auto wrong = SampleLatent({}, Gaussian, nullptr, std::nullopt, at::ones({3}));
  EXPECT_THAT(std::string(wrong.status().message()),
              HasSubstr("noise_mask: shape [3]; allowed: [H, W]"));
}

TEST(SampleTest, NothingToDoReturnsTheLatent) {
  const auto untouched = [](const at::Tensor&, double) -> absl::StatusOr<Denoised> {
    return absl::InternalError("called");
  };
  EXPECT_TRUE(at::equal(*SampleLatent({.denoise = 0}, untouched), Latent()));
  EXPECT_TRUE(at::equal(*SampleLatent({.steps = 5, .start_step = 5}, untouched), Latent()));
}

TEST(SampleTest, LatentsHaveFourDimensions) {
  const auto result = Sample(ModelSampling({}), Gaussian, at::zeros({4, 8}), std::nullopt,
                             std::nullopt, {}, nullptr);
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("latent: shape [4, 8]; allowed: [N, C, H, W]"));
}

TEST(SampleTest, AModelThatIsNotFiniteDoesNotHangTheAdaptiveSampler) {
  const auto result =
      SampleLatent({.sampler_name = "dpm_adaptive"},
                   [](const at::Tensor& x, double) -> absl::StatusOr<Denoised> {
                     return Denoised{.guided = at::full_like(x, std::nan("")), .uncond = {}};
                   });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
}

TEST(GuidanceTest, ScalesTheDifference) {
  const at::Tensor x = at::zeros({1, 1, 2, 2});
  for (const auto& [cfg, sampler_needs, evaluated] : std::vector<std::tuple<double, bool, bool>>{
           {1, false, false}, {1, true, true}, {7.5, false, true}, {0, false, true}}) {
    bool asked = false;
    const GuidedModel model = ClassifierFreeGuidance(
        [&](const at::Tensor& x, double, bool with_uncond) -> absl::StatusOr<Predictions> {
          asked = with_uncond;
          return Predictions{.cond = x + 3, .uncond = with_uncond ? x + 1 : at::Tensor()};
        },
        cfg, sampler_needs);
    const Denoised denoised = *model(x, 1);
    EXPECT_EQ(asked, evaluated);
    EXPECT_EQ(denoised.uncond.defined(), evaluated);
    EXPECT_FLOAT_EQ(denoised.guided.max().item<float>(), 1 + 2 * cfg);
  }
}

TEST(GuidanceTest, CfgPlusPlusSamplersInsistOnUncond) {
  EXPECT_TRUE(SamplerNeedsUncond("euler_cfg_pp"));
  EXPECT_FALSE(SamplerNeedsUncond("euler"));
  const auto result = SampleLatent({.sampler_name = "euler_cfg_pp"},
                                   [](const at::Tensor& x, double) -> absl::StatusOr<Denoised> {
                                     return Denoised{.guided = x, .uncond = {}};
                                   });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace distorch::sampling
