#include "lib/text/clip_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "tests/lib/text/golden_prompts.h"

namespace distorch::text {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const ClipTokenizer& Clip() { return ClipTokenizer::Get(); }

TEST(ClipTokenizerGolden, AllPromptsGiveTheReferencesChunks) {
  const nlohmann::json golden = ReadGolden("tokens.json");
  ASSERT_EQ(golden["prompts"].size(), 112u);
  for (const auto& prompt : golden["prompts"]) {
    const std::string text = prompt["text"];
    SCOPED_TRACE(text);
    ExpectSameChunks(Clip().Tokenize(text), ChunksFromJson(prompt["clip_l"]));
    ExpectSameChunks(Clip().Tokenize(text, 0), ChunksFromJson(prompt["clip_g"]));
    ExpectSameChunks(Clip().Tokenize(text, 0), ChunksFromJson(prompt["clip_h"]));
  }
}

TEST(ClipTokenizerGolden, PromptsOfTheSmallCheckpointAreBitEqual) {
  const nlohmann::json golden = ReadGolden("sd1/cases.json");
  for (const auto& prompt : golden["prompts"]) {
    SCOPED_TRACE(prompt["text"]);
    EXPECT_EQ(Clip().Tokenize(prompt["text"].get<std::string>()),
              ChunksFromJson(prompt["tokens"]["l"]));
  }
}

TEST(ClipTokenizerTest, EncodesPlainText) {
  EXPECT_THAT(Clip().Encode("a photo of a cat"), ElementsAre(320, 1125, 539, 320, 2368));
  EXPECT_THAT(Clip().Encode(""), IsEmpty());
  EXPECT_THAT(Clip().Encode(" \n\t\u3000 "), IsEmpty());
}

TEST(ClipTokenizerTest, ContractionsAreWordsOnlyWhereTheyStart) {
  EXPECT_EQ(Clip().Encode("it's"), Clip().Encode("it 's"));
  EXPECT_EQ(Clip().Encode("'stop"), Clip().Encode("'s top"));
  EXPECT_EQ(Clip().Encode("!'s"), Clip().Encode("!' s"));
  EXPECT_EQ(Clip().Encode("IT\u2019S"), Clip().Encode("it's"));
}

TEST(ClipTokenizerTest, DigitsAreSingleWordsAndLettersAndSignsAreNot) {
  EXPECT_EQ(Clip().Encode("4k"), Clip().Encode("4 k"));
  EXPECT_EQ(Clip().Encode("2024"), Clip().Encode("2 0 2 4"));
  EXPECT_THAT(Clip().Encode("!!!"), SizeIs(1));
}

TEST(ClipTokenizerTest, SpecialTokensInTextAreThemselves) {
  EXPECT_THAT(Clip().Encode("a<|endoftext|>a"), ElementsAre(320, ClipTokenizer::kEnd, 320));
  EXPECT_THAT(Clip().Encode("<|startoftext|><|STARTOFTEXT|>"),
              ElementsAre(ClipTokenizer::kStart, ClipTokenizer::kStart));
  EXPECT_THAT(Clip().Encode("<|endoftext"), Each(testing::Lt(ClipTokenizer::kStart)));
}

TEST(ClipTokenizerTest, LongSAfterAnApostropheIsAContraction) {
  EXPECT_EQ(Clip().Encode("it'\u017Ft").size(), Clip().Encode("it '\u017F t").size());
}

TEST(ClipTokenizerTest, IllFormedUtf8CountsAsReplacementCharacters) {
  EXPECT_EQ(Clip().Encode("a\xFF"
                          "b"),
            Clip().Encode("a\uFFFDb"));
  EXPECT_EQ(Clip().Encode("\xE2\x82"), Clip().Encode("\uFFFD"));
  EXPECT_EQ(Clip().Encode(std::string_view("a\0b", 3)), Clip().Encode("ab"));
}

TEST(ClipTokenizerTest, AShortRunThatDoesNotFitStartsTheNextChunk) {
  std::string prompt;
  for (int i = 0; i < 74; ++i) absl::StrAppend(&prompt, "cat ");
  absl::StrAppend(&prompt, "(red fox:1.2)");
  const TokenChunks chunks = Clip().Tokenize(prompt);
  ASSERT_THAT(chunks, ElementsAre(SizeIs(77), SizeIs(77)));
  EXPECT_EQ(chunks[0][75], (Token{ClipTokenizer::kEnd, 1.0}));
  EXPECT_EQ(chunks[0][76], (Token{ClipTokenizer::kEnd, 1.0}));
  EXPECT_EQ(chunks[1][1], (Token{736, 1.2}));
  EXPECT_EQ(chunks[1][2], (Token{3240, 1.2}));
}

TEST(ClipTokenizerTest, ALongRunIsBrokenAtTheChunksEnd) {
  std::string prompt;
  for (int i = 0; i < 76; ++i) absl::StrAppend(&prompt, "cat ");
  const TokenChunks chunks = Clip().Tokenize(prompt, 0);
  ASSERT_THAT(chunks, ElementsAre(SizeIs(77), SizeIs(77)));
  EXPECT_EQ(chunks[0][75].id, 2368);
  EXPECT_EQ(chunks[0][76].id, ClipTokenizer::kEnd);
  EXPECT_EQ(chunks[1][1].id, 2368);
  EXPECT_EQ(chunks[1][2].id, ClipTokenizer::kEnd);
  EXPECT_EQ(chunks[1][3].id, 0);
}

TEST(ClipTokenizerTest, ARunThatFitsExactlyLeavesOneChunk) {
  std::string prompt;
  for (int i = 0; i < 75; ++i) absl::StrAppend(&prompt, "cat ");
  EXPECT_THAT(Clip().Tokenize(prompt), SizeIs(1));
}

TEST(ClipTokenizerTest, TextBeforeAnEmbeddingIsARunOfItsOwn) {
  // 70 + 7 tokens: as one run they would break after the 75th.
  std::string prompt;
  for (int i = 0; i < 70; ++i) absl::StrAppend(&prompt, "cat ");
  absl::StrAppend(&prompt, "embedding:missing_one");
  const TokenChunks chunks = Clip().Tokenize(prompt);
  ASSERT_THAT(chunks, SizeIs(2));
  EXPECT_EQ(chunks[0][71].id, ClipTokenizer::kEnd);
  EXPECT_EQ(chunks[1][1].id, Clip().Encode("embedding")[0]);
}

// A quadratic step anywhere would take these to minutes; linear ones need well under a second.
TEST(ClipTokenizerTest, HostileTextTakesNoQuadraticTime) {
  constexpr int kBytes = 1 << 18;
  const auto repeat = [](std::string_view piece) {
    std::string text;
    while (text.size() < kBytes) absl::StrAppend(&text, piece);
    return text;
  };
  const std::string opens = repeat("(");
  const std::string closes = repeat(")");
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& prompt : {repeat("a"),
                                    repeat("ab"),
                                    repeat("\U0001F600"),
                                    repeat("<|endoftext|>"),
                                    repeat("<|"),
                                    repeat("&amp;amp"),
                                    repeat("&semi") + ";",
                                    repeat("&amp\u037E"),
                                    repeat("\u0301"),
                                    repeat(" embedding:"),
                                    repeat("\x1B[1"),
                                    opens,
                                    closes,
                                    opens + closes,
                                    opens + "(" + closes,
                                    opens + ":0" + closes,
                                    opens + ":" + repeat("0") + closes,
                                    repeat("(a:1.1"),
                                    repeat(")("),
                                    repeat("\\("),
                                    repeat("\xF0")}) {
    EXPECT_THAT(Clip().Tokenize(prompt), Each(SizeIs(77)));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::minutes(1));
}

}  // namespace
}  // namespace distorch::text
