// Models whose parts run where their weights lie: the same bits, less traffic, and what clients are
// told of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "tests/lib/serving/placed_fixture.h"

namespace distorch {
namespace {

using testing::HasSubstr;

constexpr char kDevices[] = "cuda:0=6GiB,cuda:1=6GiB,cuda:2=6GiB";
constexpr char kSplit[] = "cuda:0,30%;cuda:1,30%;cuda:2,20%;cpu,20%";

class PlacedExecutionTest : public testing::TestWithParam<const char*> {
 protected:
  PlacedExecutionTest() : fixture_(GetParam()) { fixture_.Start(fixture_.Options(kDevices)); }

  LoadResult Load(const std::string& execution) {
    return fixture_.Load(fixture_.Spec(kSplit, execution));
  }
  // What crossed links between accelerators so far.
  int64_t CrossedBytes() {
    int64_t bytes = 0;
    for (const LinkInfo& link : fixture_.core().Links()) {
      if (link.from != "cpu" && link.to != "cpu") bytes += link.bytes;
    }
    return bytes;
  }

  PlacedFixture fixture_;
};

TEST_P(PlacedExecutionTest, HoldersGiveTheSameBitsAndMoveActivationsInsteadOfWeights) {
  const LoadResult computed = Load("compute");
  EXPECT_TRUE(computed.placement[0].units.empty());
  const std::string expected = fixture_.Denoise(computed);
  const int64_t weights = CrossedBytes();

  const LoadResult held = Load("holder");
  EXPECT_NE(held.model, computed.model);
  EXPECT_EQ(held.clip, computed.clip);
  const std::map<std::string, int>& units = held.placement[0].units;
  EXPECT_GT(units.at("cuda:1"), 0);
  EXPECT_FALSE(units.contains("cpu"));
  EXPECT_EQ(fixture_.Denoise(held), expected);
  EXPECT_GT(CrossedBytes(), weights);  // activations are counted
  EXPECT_LT(CrossedBytes() - weights, weights);

  // Links cost nothing here, and all devices compute alike.
  const LoadResult either = Load("auto");
  EXPECT_EQ(fixture_.Denoise(either), expected);
  EXPECT_LE(either.predicted_step_seconds, computed.predicted_step_seconds);
  EXPECT_LE(either.predicted_step_seconds, held.predicted_step_seconds);
}

TEST_P(PlacedExecutionTest, TheServersChoiceHoldsForLoadsWithoutOne) {
  const LoadResult asked = Load("holder"), computed = Load("");
  EXPECT_EQ(Load("compute").model, computed.model);
  CoreOptions options = fixture_.Options(kDevices);
  options.execution = "holder";
  fixture_.Start(options);
  EXPECT_EQ(Load("").model, asked.model);
}

INSTANTIATE_TEST_SUITE_P(Families, PlacedExecutionTest,
                         testing::Values("sd1", "sdxl", "sd3", "flux"),
                         [](const auto& info) { return std::string(info.param); });

TEST(PlacedAdapterTest, AdaptersFollowTheirWeights) {
  PlacedFixture fixture("sd1");
  fixture.Start(fixture.Options(kDevices));
  std::string expected;
  for (const std::string execution : {"compute", "holder"}) {
    LoadResult loaded = fixture.Load(fixture.Spec(kSplit, execution));
    const auto adapted =
        fixture.client().ApplyLora({loaded.model, "", "sd1/lora.safetensors", 0.8, 0});
    ASSERT_TRUE(adapted.ok()) << adapted.status();
    loaded.model = adapted->model;
    const std::string denoised = fixture.Denoise(loaded);
    if (expected.empty()) expected = denoised;
    EXPECT_EQ(denoised, expected) << execution;
  }
}

TEST(ExecutionOptionTest, SaysWhatIsAllowed) {
  PlacedFixture fixture("sd1");
  CoreOptions options = fixture.Options(kDevices);
  options.execution = "everywhere";
  const auto core = DaemonCore::Create(options, nullptr);
  EXPECT_EQ(core.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(core.status().message()),
              HasSubstr("--execution: \"everywhere\" is unknown; allowed: compute, holder, auto"));

  fixture.Start(fixture.Options(kDevices));
  const auto loaded = fixture.client().Load(fixture.Spec(kSplit, "nowhere"));
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("execution: \"nowhere\""));
}

}  // namespace
}  // namespace distorch
