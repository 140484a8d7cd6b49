// Every scheduler on every kind of noise levels, against tests/golden/schedules.json.
#include "lib/sampling/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "absl/strings/str_replace.h"
#include "lib/sampling/model_sampling.h"
#include "nlohmann/json.hpp"

namespace distorch::sampling {
namespace {

using ::testing::HasSubstr;

const nlohmann::json& Golden() {
  static const nlohmann::json golden = [] {
    std::ifstream file(DISTORCH_GOLDEN_DIR "/schedules.json");
    std::stringstream text;
    text << file.rdbuf();
    // The reference divides by zero for kl_optimal with one step; JSON has no NaN.
    return nlohmann::json::parse(absl::StrReplaceAll(text.str(), {{"NaN", "null"}}));
  }();
  return golden;
}

const std::map<std::string, ModelSampling>& Samplings() {
  static const std::map<std::string, ModelSampling> samplings = {
      {"discrete_eps", ModelSampling({})},
      {"discrete_v_zsnr", ModelSampling({.prediction = Prediction::kV, .zero_terminal_snr = true})},
      {"flow_shift3",
       ModelSampling(
           {.prediction = Prediction::kFlow, .levels = NoiseLevels::kDiscreteFlow, .shift = 3})},
      {"flow_shift1", ModelSampling({.prediction = Prediction::kFlow,
                                     .levels = NoiseLevels::kDiscreteFlow,
                                     .shift = 1,
                                     .multiplier = 1})},
      {"flux_shift1.15",
       ModelSampling(
           {.prediction = Prediction::kFlow, .levels = NoiseLevels::kFlux, .shift = 1.15})},
      {"edm", ModelSampling({.prediction = Prediction::kEdm,
                             .levels = NoiseLevels::kContinuousEdm,
                             .sigma_min = 0.002,
                             .sigma_max = 80})},
  };
  return samplings;
}

TEST(ScheduleTest, SigmasOfEverySchedulerAreTheReferences) {
  // Two units in the last place of a float32: exp and tan round otherwise on other processors.
  constexpr double kRelative = 2.5e-7;
  int compared = 0;
  for (const auto& entry : Golden()["sigmas"]) {
    SCOPED_TRACE(entry["sampling"].get<std::string>() + " " +
                 entry["scheduler"].get<std::string>() + " " + entry["steps"].dump());
    const auto sigmas = CalculateSigmas(Samplings().at(entry["sampling"]),
                                        entry["scheduler"].get<std::string>(), entry["steps"]);
    ASSERT_TRUE(sigmas.ok()) << sigmas.status();
    ASSERT_EQ(sigmas->size(), entry["sigmas"].size());
    for (size_t i = 0; i < sigmas->size(); ++i) {
      if (entry["sigmas"][i].is_null()) {
        EXPECT_EQ((*sigmas)[i], Samplings().at(entry["sampling"]).sigma_max());
        continue;
      }
      const double expected = entry["sigmas"][i];
      // karras subtracts nearly equal numbers on the way to the low end.
      const double slack = entry["scheduler"] == "karras" ? 4 : 1;
      EXPECT_NEAR((*sigmas)[i], expected, kRelative * expected * slack) << i;
    }
    ++compared;
  }
  EXPECT_EQ(compared, 270);
}

TEST(ScheduleTest, EverySchedulerDescendsToZero) {
  for (const auto& [name, sampling] : Samplings()) {
    for (std::string_view scheduler : SchedulerNames()) {
      for (int steps : {1, 2, 3, 7, 50, 999, 1500}) {
        SCOPED_TRACE(name + " " + std::string(scheduler) + " " + std::to_string(steps));
        const auto sigmas = CalculateSigmas(sampling, scheduler, steps);
        ASSERT_TRUE(sigmas.ok());
        ASSERT_GE(sigmas->size(), 2u);
        EXPECT_EQ(sigmas->back(), 0);
        for (size_t i = 0; i + 1 < sigmas->size(); ++i) {
          ASSERT_TRUE(std::isfinite((*sigmas)[i]));
          ASSERT_GE((*sigmas)[i], (*sigmas)[i + 1]) << i;
        }
      }
    }
  }
}

TEST(ScheduleTest, UnknownSchedulerNamesTheFieldAndTheAllowed) {
  const auto sigmas = CalculateSigmas(Samplings().at("edm"), "krras", 5);
  EXPECT_EQ(sigmas.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(sigmas.status().message()),
              HasSubstr("scheduler: unknown 'krras'; allowed: simple, sgm_uniform"));
}

TEST(ModelSamplingTest, LevelsTimestepsAndPercentsAreTheReferences) {
  for (const auto& [name, golden] : Golden()["model_sampling"].items()) {
    SCOPED_TRACE(name);
    const ModelSampling& sampling = Samplings().at(name);
    EXPECT_FLOAT_EQ(sampling.sigma_min(), golden["sigma_min"].get<float>());
    EXPECT_FLOAT_EQ(sampling.sigma_max(), golden["sigma_max"].get<float>());
    for (const auto& pair : golden["timestep_of"]) {
      EXPECT_FLOAT_EQ(sampling.TimestepOf(pair[0].get<float>()), pair[1].get<float>()) << pair[0];
    }
    for (const auto& pair : golden["sigma_of_percent"]) {
      const double expected = pair[1];
      EXPECT_NEAR(sampling.SigmaOfPercent(pair[0]), expected, 2e-7 * expected) << pair[0];
    }
  }
}

TEST(ModelSamplingTest, SigmaOfInvertsTimestepOf) {
  for (const auto& [name, sampling] : Samplings()) {
    SCOPED_TRACE(name);
    if (name == "flow_shift3" || name == "flux_shift1.15")
      continue;  // there the network is told the shifted level
    for (size_t i = 0; i < sampling.sigmas().size(); i += 37) {
      const float sigma = sampling.sigmas()[i];
      EXPECT_NEAR(sampling.SigmaOf(sampling.TimestepOf(sigma)), sigma, 2e-6 * sigma);
    }
  }
}

// A network that knows the noise (or what else it predicts) exactly must give x0 back.
TEST(ModelSamplingTest, PerfectPredictionsGiveTheCleanLatent) {
  const at::Tensor x0 = at::linspace(-2, 2, 48).reshape({1, 3, 4, 4});
  const at::Tensor noise = at::linspace(3, -1, 48).reshape({1, 3, 4, 4});
  for (const auto& [name, sampling] : Samplings()) {
    SCOPED_TRACE(name);
    const double sigma = 0.7;
    const at::Tensor x = sampling.NoiseScaling(sigma, noise, x0);
    const double scale = std::sqrt(sigma * sigma + 1);
    at::Tensor output = noise;
    if (name == "discrete_v_zsnr") output = noise / scale - x0 * (sigma / scale);
    if (name == "edm") output = x0 * (sigma / scale) - noise / scale;
    if (sampling.is_flow()) output = noise - x0;
    EXPECT_TRUE(at::allclose(sampling.CalculateDenoised(sigma, output, x), x0, 1e-5, 1e-5));
    EXPECT_TRUE(
        at::allclose(sampling.CalculateInput(sigma, x), sampling.is_flow() ? x : x / scale));
  }
}

TEST(ModelSamplingTest, MaxDenoiseAddsTheVarianceOfALatent) {
  const ModelSampling eps({});
  const at::Tensor noise = at::ones({1, 1, 2, 2}), latent = at::zeros({1, 1, 2, 2});
  EXPECT_FLOAT_EQ(eps.NoiseScaling(3, noise, latent, false).flatten()[0].item<float>(), 3);
  EXPECT_FLOAT_EQ(eps.NoiseScaling(3, noise, latent, true).flatten()[0].item<float>(),
                  std::sqrt(10.0f));
}

}  // namespace
}  // namespace distorch::sampling
