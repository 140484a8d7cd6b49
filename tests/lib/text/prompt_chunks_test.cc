#include "lib/text/prompt_chunks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace distorch::text {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kStart = 900, kEnd = 901, kPadding = 902;

// A token a byte.
std::vector<int> Bytes(std::string_view text) { return {text.begin(), text.end()}; }

class FakeVectors : public VectorSource {
 public:
  std::optional<VectorRange> Find(std::string_view name) override {
    const auto found = ranges.find(std::string(name));
    if (found == ranges.end()) return std::nullopt;
    return found->second;
  }
  void Missing(std::string_view name) override { missing.emplace_back(name); }

  std::map<std::string, VectorRange> ranges = {{"one", {0, 1}}, {"two", {5, 2}}};
  std::vector<std::string> missing;
};

// The text of the first chunk, a vector as "<index>"; weights other than 1 after the token.
std::string Shown(std::string_view prompt, VectorSource* source) {
  const ChunkFormat format{kStart, kEnd, kPadding, 0, 1000};
  std::string shown;
  const TokenChunks chunks = ChunkPrompt(prompt, format, Bytes, source);
  EXPECT_THAT(chunks, SizeIs(1));
  for (const Token& token : chunks.front()) {
    if (token.vector >= 0) {
      shown += "<" + std::to_string(token.vector) + ">";
    } else if (token.id < kStart) {
      shown += static_cast<char>(token.id);
    }
    if (token.weight != 1.0) shown += "*";
  }
  return shown;
}

TEST(PromptChunksTest, EmbeddingsBecomeVectors) {
  FakeVectors vectors;
  EXPECT_EQ(Shown("embedding:one", &vectors), "<0>");
  EXPECT_EQ(Shown("a embedding:two b", &vectors), "a<5><6>b");
  EXPECT_EQ(Shown("a\nembedding:two\n", &vectors), "a<5><6>");
  EXPECT_EQ(Shown("a (embedding:two:1.5)", &vectors), "a <5>*<6>*");
  EXPECT_EQ(Shown("embedding:one embedding:one", &vectors), "<0><0>");
  EXPECT_THAT(vectors.missing, IsEmpty());
}

TEST(PromptChunksTest, OnlyAtTheStartOrAfterABlank) {
  FakeVectors vectors;
  EXPECT_EQ(Shown("an-embedding:one", &vectors), "an-embedding:one");
  EXPECT_EQ(Shown("a\tembedding:one", &vectors), "a\tembedding:one");
}

TEST(PromptChunksTest, CommasAroundANameAreText) {
  FakeVectors vectors;
  EXPECT_EQ(Shown("embedding:one, b", &vectors), "<0>, b");
  EXPECT_EQ(Shown("embedding:one,,", &vectors), "<0>,, ");
  vectors.ranges["one,"] = {7, 1};
  EXPECT_EQ(Shown("embedding:one, b", &vectors), "<7>b");
  EXPECT_THAT(vectors.missing, IsEmpty());
}

TEST(PromptChunksTest, MissingOnesAreLeftOutAndTold) {
  FakeVectors vectors;
  EXPECT_EQ(Shown("a embedding:three, b", &vectors), "a, b");
  EXPECT_EQ(Shown("embedding:", &vectors), "");
  EXPECT_THAT(vectors.missing, ElementsAre("three", ""));
}

TEST(PromptChunksTest, WithoutASourceTheyAreText) {
  EXPECT_EQ(Shown("embedding:one", nullptr), "embedding:one");
}

TEST(PromptChunksTest, ChunksHaveTheirFormat) {
  const ChunkFormat format{std::nullopt, kEnd, kPadding, 4, 6};
  const auto ids = [&](std::string_view prompt) {
    std::vector<std::vector<int>> all;
    for (const auto& chunk : ChunkPrompt(prompt, format, Bytes, nullptr)) {
      all.emplace_back();
      for (const Token& token : chunk) all.back().push_back(token.id);
    }
    return all;
  };
  EXPECT_THAT(ids(""), ElementsAre(ElementsAre(kEnd, kPadding, kPadding, kPadding)));
  EXPECT_THAT(ids("abcde"), ElementsAre(ElementsAre('a', 'b', 'c', 'd', 'e', kEnd)));
  // Eight tokens are broken.
  EXPECT_THAT(ids("abcdefgh"), ElementsAre(ElementsAre('a', 'b', 'c', 'd', 'e', kEnd),
                                           ElementsAre('f', 'g', 'h', kEnd)));
}

}  // namespace
}  // namespace distorch::text
