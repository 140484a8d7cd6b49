#include "lib/text/text_cleaning.h"

#include <gtest/gtest.h>

#include <string_view>

#include "lib/text/html_entities.h"

namespace distorch::text {
namespace {

struct Case {
  std::string_view text, cleaned;
};

// Expected values are those of ftfy 6.3.1 with the reference's whitespace and case rules after it.
TEST(CleanTextTest, RepairsCharacters) {
  for (const Case& c : std::initializer_list<Case>{
           {"  a \t\r\n\u3000 B  ", "a b"},
           {"\u2018q\u2019 \u201Cq\u201D \u02BC", "'q' \"q\" '"},
           {"\uFB01\uFB03\uFB05 \u0132 \u01C4 \u0149", "fiffi\u017Ft ij d\u017E 'n"},
           {"\uFF21\uFF22\uFF01 \uFF76\uFF9E", "ab! \u30AC"},
           {"e\u0301 \u212B \u2126", "\u00E9 \u00E5 \u03C9"},
           {"\u0130 \u03A3\u039F\u03A3", "i\u0307 \u03C3\u03BF\u03C2"},
           {"a\u0085b\u0092c", "a\u2026b'c"},
           {"a\x1B[31;1mb\x1B[0m \x1B[,", "ab [,"},
           {"a\x01\x7F\uFEFF\uFFFC\u206A"
            "b",
            "ab"},
           {"zero\u200Bwidth \u200D", "zero\u200Bwidth \u200D"},
           {"\u00BD \u00B2 \u2122", "\u00BD \u00B2 \u2122"}}) {
    EXPECT_EQ(CleanText(c.text), c.cleaned) << c.text;
  }
}

TEST(CleanTextTest, DecodesCharacterReferences) {
  for (const Case& c : std::initializer_list<Case>{
           {"&lt;tag&gt; &amp;amp; &#38;lt;", "<tag> & <"},
           {"&eacute; &NTILDE; &nTILDE; &SZLIG;", "\u00E9 \u00F1 &ntilde; ss"},
           {"&#x2019; &#X41; &#65; &#146;", "' a a '"},
           {"&#0; &#xD800; &#x110000; &#99999999999;", "\uFFFD \uFFFD \uFFFD \uFFFD"},
           {"&amp &unknown; &#; &#x; &#12ab; &#59; &;", "&amp &unknown; &#; &#x; &#12ab; &#59; &;"},
           {"&amp&semi; &hell\x01ip; \uFF06amp\uFF1B", "& \u2026 &"},
           {"a &lt; b\n1 < 2 &lt; 3\n&gt;", "a < b 1 < 2 &lt; 3 &gt;"},
           {"&NotEqualTilde;", "\u2242\u0338"}}) {
    EXPECT_EQ(CleanText(c.text), c.cleaned) << c.text;
  }
}

TEST(CleanTextTest, ReplacesIllFormedUtf8) {
  EXPECT_EQ(CleanText("a\xFFz"), "a\uFFFDz");
  EXPECT_EQ(CleanText("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
}

TEST(DecodeHtmlEntityTest, KnowsNamesAndNumbers) {
  EXPECT_EQ(DecodeHtmlEntity("amp"), U"&");
  EXPECT_EQ(DecodeHtmlEntity("AMP"), U"&");
  EXPECT_EQ(DecodeHtmlEntity("ThickSpace"), U"\u205F\u200A");
  EXPECT_EQ(DecodeHtmlEntity("#x1F600"), U"\U0001F600");
  EXPECT_EQ(DecodeHtmlEntity("#1"), U"");
  EXPECT_EQ(DecodeHtmlEntity("#xFFFF"), U"");
  EXPECT_EQ(DecodeHtmlEntity("Amp"), std::nullopt);
  EXPECT_EQ(DecodeHtmlEntity(""), std::nullopt);
}

}  // namespace
}  // namespace distorch::text
