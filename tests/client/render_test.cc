#include "client/ctl/render.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

namespace distorch::ctl {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(FormatBytesTest, KeepsThreeDigits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(12902727), "12.3 MiB");
  EXPECT_EQ(FormatBytes(int64_t{4265146304}), "3.97 GiB");
  EXPECT_EQ(FormatBytes(int64_t{128} << 30), "128 GiB");
  EXPECT_EQ(FormatBytes(1000 * 1024), "0.98 MiB");
  EXPECT_EQ(FormatBytes(-2048), "-2.00 KiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::max()), "8.00 EiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::min()), "-8.00 EiB");
}

TEST(FormatSecondsTest, ChoosesTheUnit) {
  EXPECT_EQ(FormatSeconds(0), "0 ms");
  EXPECT_EQ(FormatSeconds(0.0312), "31 ms");
  EXPECT_EQ(FormatSeconds(0.9996), "1.00 s");
  EXPECT_EQ(FormatSeconds(12.34), "12.3 s");
  EXPECT_EQ(FormatSeconds(125), "2 min 05 s");
  EXPECT_EQ(FormatSeconds(3599.6), "1 h 00 min");
  EXPECT_EQ(FormatSeconds(3720), "1 h 02 min");
  for (double bad : {-1.0, kNan, kInfinity, 1e300}) EXPECT_EQ(FormatSeconds(bad), "-");
}

TEST(FormatPercentTest, OneDecimal) {
  EXPECT_EQ(FormatPercent(0.6119), "61.2 %");
  EXPECT_EQ(FormatPercent(kNan), "-");
}

TEST(BarTest, FillsToAnEighthOfAColumn) {
  EXPECT_EQ(Bar(0.5, 4, true), "██░░");
  EXPECT_EQ(Bar(0.53125, 4, true), "██▏░");
  EXPECT_EQ(Bar(0.5, 4, false), "##..");
}

TEST(BarTest, EmptyAndFullOnlyWhenTheyAre) {
  EXPECT_EQ(Bar(0, 4, false), "....");
  EXPECT_EQ(Bar(1, 4, false), "####");
  EXPECT_EQ(Bar(1e-9, 4, false), "#...");
  EXPECT_EQ(Bar(0.999999, 4, false), "###.");
  EXPECT_EQ(Bar(1e-9, 4, true), "▏░░░");
  EXPECT_EQ(Bar(0.999999, 4, true), "███▉");
}

TEST(BarTest, ClampsAnyNumber) {
  EXPECT_EQ(Bar(-3, 3, false), "...");
  EXPECT_EQ(Bar(7, 3, false), "###");
  EXPECT_EQ(Bar(kNan, 3, false), "...");
  EXPECT_EQ(Bar(kInfinity, 3, false), "...");
}

TEST(BarTest, IsAlwaysAsWideAsAsked) {
  for (bool unicode : {false, true}) {
    for (int width : {1, 2, 7, 24}) {
      for (int i = 0; i <= 100; ++i) {
        EXPECT_EQ(DisplayWidth(Bar(i / 100.0, width, unicode)), width);
      }
    }
  }
}

TEST(DisplayWidthTest, CountsColumnsNotBytes) {
  EXPECT_EQ(DisplayWidth("abc"), 3);
  EXPECT_EQ(DisplayWidth("ü"), 1);
  EXPECT_EQ(DisplayWidth("u\u0308"), 1);  // a combining diaeresis
  EXPECT_EQ(DisplayWidth("日本"), 4);
  EXPECT_EQ(DisplayWidth("a\xff"), 2);
}

TEST(PrintableTest, TakesTheTeethOutOfControlCharacters) {
  EXPECT_EQ(Printable("ü日 ok"), "ü日 ok");
  EXPECT_EQ(Printable("a\x1b[2Jb\n\x7f\xff\xc2\x9b"), "a?[2Jb????");
}

TEST(TruncatedTest, CutsBetweenCharacters) {
  EXPECT_EQ(Truncated("abc", 2), "ab");
  EXPECT_EQ(Truncated("日本", 3), "日");
  EXPECT_EQ(Truncated("ü", 1), "ü");
  EXPECT_EQ(Truncated("abc", 9), "abc");
  EXPECT_EQ(Truncated("abc", -1), "");
}

TEST(TableTest, AlignsByDisplayWidthWithoutTrailingSpaces) {
  Table table({{"NAME"}, {"SIZE", Align::kRight}, {"NOTE"}});
  EXPECT_TRUE(table.empty());
  table.AddRow({"日本", "1 B", "wide"});
  table.AddRow({"sd15", "12.3 MiB"});
  EXPECT_FALSE(table.empty());
  EXPECT_EQ(table.Render(),
            "NAME      SIZE  NOTE\n"
            "日本       1 B  wide\n"
            "sd15  12.3 MiB\n");
}

TEST(TableTest, SurvivesHostileAndSurplusCells) {
  Table table({{"A"}, {"B"}});
  table.AddRow({"x\ny", "\x1b[31m", "surplus"});
  table.AddRow({});
  EXPECT_EQ(table.Render(), "A    B\nx?y  ?[31m\n\n");
}

TEST(WantsUnicodeTest, FollowsSetlocaleOnTerminalsOnly) {
  EXPECT_TRUE(WantsUnicode(true, nullptr, nullptr, "en_US.UTF-8"));
  EXPECT_TRUE(WantsUnicode(true, "C.utf8", nullptr, "C"));
  EXPECT_TRUE(WantsUnicode(true, "", "de_DE.UTF-8", "C"));
  EXPECT_FALSE(WantsUnicode(true, "C", nullptr, "en_US.UTF-8"));
  EXPECT_FALSE(WantsUnicode(true, nullptr, nullptr, nullptr));
  EXPECT_FALSE(WantsUnicode(true, nullptr, nullptr, "de_DE.ISO-8859-1"));
  EXPECT_FALSE(WantsUnicode(false, nullptr, nullptr, "en_US.UTF-8"));
}

}  // namespace
}  // namespace distorch::ctl
