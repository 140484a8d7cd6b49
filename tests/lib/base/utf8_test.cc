#include "lib/base/utf8.h"

#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace distorch {
namespace {

TEST(Utf8Test, PrefixEndsBeforeTheFirstBadByte) {
  EXPECT_EQ(Utf8PrefixLength(""), 0);
  EXPECT_EQ(Utf8PrefixLength("aé漢🙂"), 10);
  EXPECT_EQ(Utf8PrefixLength(std::string_view("a\0b", 3)), 3);
  EXPECT_EQ(Utf8PrefixLength("ab\xff"), 2);
  EXPECT_EQ(Utf8PrefixLength("a\xc3"), 1);              // cut
  EXPECT_EQ(Utf8PrefixLength("a\xc0\x80"), 1);          // overlong
  EXPECT_EQ(Utf8PrefixLength("a\xed\xa0\x80"), 1);      // a surrogate
  EXPECT_EQ(Utf8PrefixLength("a\xf4\x90\x80\x80"), 1);  // past U+10FFFF
}

TEST(Utf8Test, QuotedKeepsPlainText) {
  EXPECT_EQ(Quoted("models/sd 1.5 日本.safetensors"), "'models/sd 1.5 日本.safetensors'");
  EXPECT_EQ(Quoted(""), "''");
}

TEST(Utf8Test, QuotedEscapesWhatCouldMislead) {
  EXPECT_EQ(Quoted("a'b\n\x01"), R"('a\'b\n\001')");
  EXPECT_EQ(Quoted("a\xff"), R"('a\377')");
  EXPECT_EQ(Quoted(std::string_view("a\0", 2)), R"('a\000')");
}

TEST(Utf8Test, QuotedCutsLongTextBetweenCharacters) {
  EXPECT_EQ(Quoted(std::string(200, 'a')), "'" + std::string(120, 'a') + "...'");
  EXPECT_EQ(Quoted(std::string(119, 'a') + "é"), "'" + std::string(119, 'a') + "...'");
  EXPECT_EQ(Quoted(std::string(118, 'a') + "é"), "'" + std::string(118, 'a') + "é'");
}

}  // namespace
}  // namespace distorch
