#include "lib/text/t5_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "tests/lib/text/golden_prompts.h"

namespace distorch::text {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const T5Tokenizer& T5() { return T5Tokenizer::Get(); }

TEST(T5TokenizerGolden, AllPromptsGiveTheReferencesChunks) {
  const nlohmann::json golden = ReadGolden("tokens.json");
  ASSERT_EQ(golden["prompts"].size(), 112u);
  for (const auto& prompt : golden["prompts"]) {
    const std::string text = prompt["text"];
    SCOPED_TRACE(text);
    ExpectSameChunks(T5().Tokenize(text, T5Tokenizer::kSd3Length),
                     ChunksFromJson(prompt["t5xxl_sd3"]));
    ExpectSameChunks(T5().Tokenize(text, T5Tokenizer::kFluxLength),
                     ChunksFromJson(prompt["t5xxl_flux"]));
  }
}

TEST(T5TokenizerTest, EncodesPlainText) {
  EXPECT_THAT(T5().Encode("a photo of a cat"), ElementsAre(3, 9, 1202, 13, 3, 9, 1712));
  EXPECT_THAT(T5().Encode(""), IsEmpty());
  EXPECT_THAT(T5().Encode(" \n\t\u3000 "), IsEmpty());
}

TEST(T5TokenizerTest, RunsOfSpacesAreOneAndThoseAtTheEndAreNone) {
  EXPECT_EQ(T5().Encode("red   fox  "), T5().Encode("red fox"));
  EXPECT_EQ(T5().Encode("  red fox"), T5().Encode(" red fox"));
  EXPECT_EQ(T5().Encode("red\u3000fox"), T5().Encode("red fox"));
}

TEST(T5TokenizerTest, CompatibilityFormsAreOrdinary) {
  EXPECT_EQ(T5().Encode("\uFF21\uFF22\uFF23"), T5().Encode("ABC"));
  EXPECT_EQ(T5().Encode("\uFB01ne"), T5().Encode("fine"));
  EXPECT_EQ(T5().Encode("e\u0301"), T5().Encode("\u00E9"));
  EXPECT_EQ(T5().Encode("a\r\nb"), T5().Encode("a b"));
}

TEST(T5TokenizerTest, NeighbouringUnknownCharactersAreOneToken) {
  EXPECT_THAT(T5().Encode("\u65E5\u672C"), ElementsAre(3, T5Tokenizer::kUnknown));
  EXPECT_THAT(T5().Encode("\u65E5 \u672C"),
              ElementsAre(3, T5Tokenizer::kUnknown, 3, T5Tokenizer::kUnknown));
}

TEST(T5TokenizerTest, SpecialTokensInTextAreThemselves) {
  EXPECT_THAT(T5().Encode("<pad></s><unk>"), ElementsAre(0, 1, 2));
  EXPECT_THAT(T5().Encode("<extra_id_0><extra_id_99>"), ElementsAre(32099, 32000));
  EXPECT_THAT(T5().Encode("<extra_id_100>"), SizeIs(testing::Gt(1)));
  EXPECT_THAT(T5().Encode("<extra_id_07>"), SizeIs(testing::Gt(1)));
  EXPECT_THAT(T5().Encode("<extra_id_>"), SizeIs(testing::Gt(1)));
  EXPECT_THAT(T5().Encode("<extra_id_1"), SizeIs(testing::Gt(1)));
  // Only the text's first word starts without a space.
  EXPECT_EQ(T5().Encode("</s>cat").back(), T5().Encode("bobcat").back());
}

TEST(T5TokenizerTest, IllFormedUtf8CountsAsReplacementCharacters) {
  EXPECT_EQ(T5().Encode("a\xFF"
                        "b"),
            T5().Encode("a\uFFFDb"));
  EXPECT_EQ(T5().Encode("\xE2\x82"), T5().Encode("\uFFFD"));
  EXPECT_EQ(T5().Encode(std::string_view("a\0b", 3)).size(), 4u);
}

TEST(T5TokenizerTest, APromptIsOneChunkOfAnyLength) {
  std::string prompt;
  for (int i = 0; i < 300; ++i) absl::StrAppend(&prompt, "fox ");
  const TokenChunks chunks = T5().Tokenize(prompt, T5Tokenizer::kFluxLength);
  ASSERT_THAT(chunks, ElementsAre(SizeIs(testing::Gt(300))));
  EXPECT_EQ(chunks[0].back(), Token{T5Tokenizer::kEnd});
}

// A quadratic step anywhere would take these to minutes.
TEST(T5TokenizerTest, HostileTextTakesNoQuadraticTime) {
  constexpr int kBytes = 1 << 18;
  const auto repeat = [](std::string_view piece) {
    std::string text;
    while (text.size() < kBytes) absl::StrAppend(&text, piece);
    return text;
  };
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& prompt :
       {repeat("a"), repeat("Internațional"), repeat("\u0301"), repeat("e\u0301\u0301"),
        repeat("\u65E5"), repeat("<"), repeat("<extra_id_"), repeat("<extra_id_1>"), repeat(" "),
        repeat("\u2581"), repeat(" a"), repeat("\xF0"), repeat("\U0001F468\u200D"),
        repeat("\U0001F1E6"), repeat("\uFDFA"), repeat("("), repeat(" embedding:")}) {
    EXPECT_THAT(T5().Tokenize(prompt, T5Tokenizer::kSd3Length), SizeIs(1));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::minutes(1));
}

}  // namespace
}  // namespace distorch::text
