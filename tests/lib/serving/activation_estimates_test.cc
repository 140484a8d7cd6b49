#include "lib/serving/activation_estimates.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

const DeviceId kCuda0{"cuda", 0}, kCuda1{"cuda", 1};

ActivationKey Key(int64_t side, const std::string& model = "model-1") {
  ActivationKey key;
  key.family = "sd1";
  key.phase = "sample";
  key.model = model;
  key.width = key.height = side;
  return key;
}

// What is counted grows with the area.
ActivationNeeds Counted(int64_t side) { return {{kCuda0, {side * side, 4 * side * side}}}; }

class ActivationEstimatesTest : public testing::Test {
 protected:
  ActivationNeed Of(const ActivationKey& key, int64_t side) {
    return estimates_.Of(key, Counted(side)).at(kCuda0);
  }
  void Learn(const ActivationKey& key, int64_t side, int64_t peak) {
    estimates_.Learn(key, Counted(side), {{kCuda0, peak}});
  }
  void Fail(const ActivationKey& key, int64_t side, int64_t held, int64_t asked) {
    estimates_.LearnFailure(key, Counted(side), {{kCuda0, held}}, {{kCuda0, asked}});
  }

  ActivationEstimates estimates_;
};

TEST_F(ActivationEstimatesTest, AtFirstAreWhatIsCounted) {
  EXPECT_EQ(estimates_.Of(Key(10), Counted(10)), Counted(10));
  EXPECT_TRUE(estimates_.Of(Key(10), {}).empty());
}

TEST_F(ActivationEstimatesTest, AreWhatTheSameTook) {
  Learn(Key(10), 10, 250);
  EXPECT_EQ(Of(Key(10), 10), (ActivationNeed{250, 250}));
  Learn(Key(10), 10, 230);
  Learn(Key(10), 10, 270);
  EXPECT_EQ(Of(Key(10), 10), (ActivationNeed{230, 270}));
}

TEST_F(ActivationEstimatesTest, EveryPartOfTheKeyTellsRunsApart) {
  Learn(Key(10), 10, 399);
  const auto expect_unknown = [&](auto change) {
    ActivationKey other = Key(10);
    change(other);
    EXPECT_EQ(Of(other, 10).at_least, 100);
  };
  expect_unknown([](ActivationKey& key) { key.family = "sdxl"; });
  expect_unknown([](ActivationKey& key) { key.phase = "denoise"; });
  expect_unknown([](ActivationKey& key) { key.model = "model-2"; });
  expect_unknown([](ActivationKey& key) { key.detail = "previews"; });
  expect_unknown([](ActivationKey& key) { key.width = 11; });
  expect_unknown([](ActivationKey& key) { key.height = 11; });
  expect_unknown([](ActivationKey& key) { key.batch = 2; });
  expect_unknown([](ActivationKey& key) { key.context = 154; });
  expect_unknown([](ActivationKey& key) { key.element_bytes = 2; });
}

TEST_F(ActivationEstimatesTest, AreCorrectedByTheNearestThatRan) {
  Learn(Key(10), 10, 200);      // half of what was counted
  Learn(Key(100), 100, 10000);  // a quarter
  EXPECT_EQ(Of(Key(12), 12), (ActivationNeed{144, 288}));
  EXPECT_EQ(Of(Key(90), 90), (ActivationNeed{8100, 8100}));
  // Others of the family stand in where the model itself has not run, but only there.
  EXPECT_EQ(Of(Key(12, "model-2"), 12).expected, 288);
  Learn(Key(1000, "model-2"), 1000, 3000000);
  EXPECT_EQ(Of(Key(12, "model-2"), 12).expected, 432);
  EXPECT_EQ(Of(Key(12), 12).expected, 288);
  ActivationKey other = Key(12);
  other.family = "flux";
  EXPECT_EQ(Of(other, 12).expected, 576);
}

TEST_F(ActivationEstimatesTest, NeverExpectLessThanTheLeast) {
  Learn(Key(10), 10, 1);
  EXPECT_EQ(Of(Key(20), 20), (ActivationNeed{400, 400}));
}

TEST_F(ActivationEstimatesTest, GrowWithFailures) {
  Fail(Key(10), 10, 400, 300);  // it had 400, and wanted more
  EXPECT_EQ(Of(Key(10), 10), (ActivationNeed{300, 500}));
  Fail(Key(10), 10, 500, 600);
  EXPECT_EQ(Of(Key(10), 10), (ActivationNeed{600, 625}));
  Fail(Key(10), 10, 100, 50);  // says nothing new
  EXPECT_EQ(Of(Key(10), 10), (ActivationNeed{600, 625}));
  Learn(Key(10), 10, 610);  // what runs is known
  EXPECT_EQ(Of(Key(10), 10), (ActivationNeed{610, 610}));
  Fail(Key(10), 10, 610, 640);
  EXPECT_EQ(Of(Key(10), 10), (ActivationNeed{640, 640}));
}

TEST_F(ActivationEstimatesTest, AreOfEachDevice) {
  const ActivationNeeds counted = {{kCuda0, {100, 400}}, {kCuda1, {50, 200}}};
  estimates_.Learn(Key(10), counted, {{kCuda1, 150}});  // the other one was not measured
  const ActivationNeeds needs = estimates_.Of(Key(10), counted);
  EXPECT_EQ(needs.at(kCuda0), (ActivationNeed{100, 400}));
  EXPECT_EQ(needs.at(kCuda1), (ActivationNeed{150, 150}));
}

TEST_F(ActivationEstimatesTest, KeepABoundedNumberOfThoseUsedLast) {
  Learn(Key(10), 10, 399);
  for (int i = 0; i < 2000; ++i) {
    Learn(Key(10, absl::StrCat("other", i)), 10, 398);
    if (i % 100 == 0) Learn(Key(10), 10, 399);
  }
  EXPECT_EQ(Of(Key(10), 10).at_least, 399);
  EXPECT_EQ(Of(Key(10, "other0"), 10).at_least, 100);
  EXPECT_EQ(Of(Key(10, "other1999"), 10).at_least, 398);
}

}  // namespace
}  // namespace distorch
