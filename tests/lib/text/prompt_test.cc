#include "lib/text/prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace distorch::text {

void PrintTo(const WeightedText& run, std::ostream* out) {
  *out << '"' << run.text << "\":" << run.weight;
}

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

MATCHER_P2(Weighted, text, weight, absl::StrCat("is \"", text, "\":", weight)) {
  return arg.text == text && std::abs(arg.weight - weight) < 1e-12;
}

TEST(ParsePromptWeightsTest, PlainTextIsOneRun) {
  EXPECT_THAT(ParsePromptWeights("a cat, [dim] <b>"),
              ElementsAre(Weighted("a cat, [dim] <b>", 1.0)));
  EXPECT_THAT(ParsePromptWeights(""), IsEmpty());
  EXPECT_THAT(ParsePromptWeights("()"), IsEmpty());
}

TEST(ParsePromptWeightsTest, EachLevelMultipliesByATenthMore) {
  EXPECT_THAT(ParsePromptWeights("a (b) ((c))d"),
              ElementsAre(Weighted("a ", 1.0), Weighted("b", 1.1), Weighted(" ", 1.0),
                          Weighted("c", 1.21), Weighted("d", 1.0)));
}

TEST(ParsePromptWeightsTest, ANumberReplacesTheWeightOfItsLevel) {
  EXPECT_THAT(ParsePromptWeights("(a (b:1.5) c:0.5)"),
              ElementsAre(Weighted("a ", 0.5), Weighted("b", 1.5), Weighted(" c", 0.5)));
  EXPECT_THAT(ParsePromptWeights("((a):0.5)"), ElementsAre(Weighted("a", 0.55)));
  EXPECT_THAT(ParsePromptWeights("(a:b:-1.2)"), ElementsAre(Weighted("a:b", -1.2)));
}

TEST(ParsePromptWeightsTest, NumbersAreReadAsPythonReadsThem) {
  EXPECT_THAT(ParsePromptWeights("(a: 1_0.5e-1\t)"), ElementsAre(Weighted("a", 1.05)));
  EXPECT_THAT(ParsePromptWeights("(a:+.5)"), ElementsAre(Weighted("a", 0.5)));
  EXPECT_THAT(ParsePromptWeights("(a:\u3000\uFF11.\uFF15)"), ElementsAre(Weighted("a", 1.5)));
  EXPECT_EQ(ParsePromptWeights("(a:1e999)")[0].weight, HUGE_VAL);
  EXPECT_TRUE(std::isnan(ParsePromptWeights("(a:nan)")[0].weight));
}

TEST(ParsePromptWeightsTest, WhatIsNoNumberStaysText) {
  for (const char* text : {"a:", "a:b", ":1.2", "a:1__0", "a:_1", "a:1_", "a:0x10", "a:1.2.3",
                           "a:nan\\(1\\)", "a:+-1", "a:1,5"}) {
    const auto runs = ParsePromptWeights(absl::StrCat("(", text, ")"));
    ASSERT_EQ(runs.size(), 1u) << text;
    EXPECT_DOUBLE_EQ(runs[0].weight, 1.1) << text;
  }
  EXPECT_THAT(ParsePromptWeights("(a:1.2 (b))"),
              ElementsAre(Weighted("a:1.2 ", 1.1), Weighted("b", 1.21)));
}

TEST(ParsePromptWeightsTest, EscapedParenthesesArePlain) {
  EXPECT_THAT(ParsePromptWeights("\\(a\\)"), ElementsAre(Weighted("(a)", 1.0)));
  EXPECT_THAT(ParsePromptWeights("(a \\(b\\):1.3)"), ElementsAre(Weighted("a (b)", 1.3)));
  EXPECT_THAT(ParsePromptWeights("(a\\)"), ElementsAre(Weighted("(a)", 1.0)));
  EXPECT_THAT(ParsePromptWeights("\\\\(a"), ElementsAre(Weighted("\\(a", 1.0)));
}

// The reference's results for unbalanced prompts.
TEST(ParsePromptWeightsTest, UnbalancedParentheses) {
  EXPECT_THAT(ParsePromptWeights("(a"), ElementsAre(Weighted("(a", 1.0)));
  EXPECT_THAT(ParsePromptWeights("a)"), ElementsAre(Weighted("a)", 1.0)));
  EXPECT_THAT(ParsePromptWeights("a) (b) c"), ElementsAre(Weighted("a) (b) c", 1.0)));
  EXPECT_THAT(ParsePromptWeights("a) ( (b) c"),
              ElementsAre(Weighted("a) ( ", 1.0), Weighted("b", 1.1), Weighted(" c", 1.0)));
  EXPECT_THAT(ParsePromptWeights("(a (b)"), ElementsAre(Weighted("a ", 1.1), Weighted("(b", 1.1)));
  EXPECT_THAT(ParsePromptWeights("(a ("), ElementsAre(Weighted("(a (", 1.0)));
  EXPECT_THAT(ParsePromptWeights("(a (b:1.3)"),
              ElementsAre(Weighted("a ", 1.3), Weighted("(b", 1.3)));
}

TEST(ParsePromptWeightsTest, DepthIsBoundedByTheText) {
  const int depth = 100'000;
  const std::string prompt =
      absl::StrCat(std::string(depth, '('), "a:2", std::string(depth, ')'), "b");
  EXPECT_THAT(ParsePromptWeights(prompt), ElementsAre(Weighted("a", 2.0), Weighted("b", 1.0)));
}

}  // namespace
}  // namespace distorch::text
