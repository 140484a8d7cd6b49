#include "lib/text/unigram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace distorch::text {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int> Encode(const Unigram& model, std::string_view word) {
  std::vector<int> tokens;
  model.EncodeWord(word, &tokens);
  return tokens;
}

const Unigram& Model() {
  static const Unigram& model = *new Unigram(Unigram::Create({{"<unk>", 0},
                                                              {"a", -1},
                                                              {"b", -2},
                                                              {"ab", -2.5},
                                                              {"abc", -9},
                                                              {"c", -4},
                                                              {"\u00E9", -3}},
                                                             0)
                                                 .value());
  return model;
}

TEST(UnigramTest, TheMostProbableSegmentationWins) {
  EXPECT_THAT(Encode(Model(), ""), IsEmpty());
  EXPECT_THAT(Encode(Model(), "ab"), ElementsAre(3));
  EXPECT_THAT(Encode(Model(), "abc"), ElementsAre(3, 5));
  EXPECT_THAT(Encode(Model(), "ba\u00E9"), ElementsAre(2, 1, 6));
}

TEST(UnigramTest, UnknownCharactersFuse) {
  EXPECT_THAT(Encode(Model(), "xyz"), ElementsAre(0));
  EXPECT_THAT(Encode(Model(), "xaxy"), ElementsAre(0, 1, 0));
  EXPECT_THAT(Encode(Model(), "\u00E8a"), ElementsAre(0, 1));
}

TEST(UnigramTest, TokensAreAppended) {
  std::vector<int> tokens = {0};
  Model().EncodeWord("xa", &tokens);
  EXPECT_THAT(tokens, ElementsAre(0, 0, 1));
}

TEST(UnigramTest, BadVocabulariesAreRefused) {
  EXPECT_FALSE(Unigram::Create({}, 0).ok());
  EXPECT_FALSE(Unigram::Create({{"a", 0}}, 1).ok());
  EXPECT_FALSE(Unigram::Create({{"a", 0}}, -1).ok());
  EXPECT_FALSE(Unigram::Create({{"a", 0}, {"", 0}}, 0).ok());
  EXPECT_FALSE(Unigram::Create({{"a", 0}, {"a", 1}}, 0).ok());
  EXPECT_FALSE(Unigram::Create({{"a", std::nan("")}}, 0).ok());
  EXPECT_FALSE(Unigram::Create({{std::string(65, 'a'), 0}}, 0).ok());
}

}  // namespace
}  // namespace distorch::text
