#include "lib/text/byte_pair_encoding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "lib/text/vocab/embedded.h"

namespace distorch::text {
namespace {

using ::testing::HasSubstr;

constexpr int kClipMerges = 48894;

std::string Gzip(const std::string& text) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string gz(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = text.size();
  stream.next_out = reinterpret_cast<Bytef*>(gz.data());
  stream.avail_out = gz.size();
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  gz.resize(stream.total_out);
  deflateEnd(&stream);
  return gz;
}

BytePairEncoding FromMerges(const std::string& merges, int count) {
  return BytePairEncoding::FromGzip(Gzip("header\n" + merges), count).value();
}

std::vector<int> Encode(const BytePairEncoding& encoding, std::string_view word) {
  std::vector<int> tokens;
  encoding.EncodeWord(word, &tokens);
  return tokens;
}

// The published algorithm, a pass over the whole word for every merge.
std::vector<int> PlainEncode(std::vector<int> symbols,
                             const std::map<std::pair<int, int>, int>& merges) {
  while (true) {
    auto best = merges.end();
    for (size_t i = 1; i < symbols.size(); ++i) {
      const auto found = merges.find({symbols[i - 1], symbols[i]});
      if (found != merges.end() && (best == merges.end() || found->second < best->second)) {
        best = found;
      }
    }
    if (best == merges.end()) return symbols;
    std::vector<int> merged;
    for (size_t i = 0; i < symbols.size(); ++i) {
      if (i + 1 < symbols.size() && best->first == std::pair(symbols[i], symbols[i + 1])) {
        merged.push_back(best->second);
        ++i;
      } else {
        merged.push_back(symbols[i]);
      }
    }
    symbols = std::move(merged);
  }
}

TEST(BytePairEncodingTest, NumbersTokensAsClipDoes) {
  const BytePairEncoding encoding = FromMerges("a b\nab c</w>\n", 2);
  const int a = 'a' - '!', b = 'b' - '!', c = 'c' - '!';
  EXPECT_EQ(encoding.size(), 514);
  EXPECT_EQ(Encode(encoding, "a"), std::vector<int>({a + 256}));
  EXPECT_EQ(Encode(encoding, "abc"), std::vector<int>({513}));
  EXPECT_EQ(Encode(encoding, "ab"), std::vector<int>({a, b + 256}));
  EXPECT_EQ(Encode(encoding, "abab\xC3"), std::vector<int>({512, 512, 127 + 256}));
  EXPECT_EQ(Encode(encoding, std::string_view("\0c", 2)), std::vector<int>({188, c + 256}));
}

TEST(BytePairEncodingTest, OverlappingPairsMergeFromTheLeft) {
  const BytePairEncoding encoding = FromMerges("a a\naa aa\n", 2);
  const int a = 'a' - '!';
  EXPECT_EQ(Encode(encoding, "aaaax"), std::vector<int>({513, 'x' - '!' + 256}));
  EXPECT_EQ(Encode(encoding, "aaax"), std::vector<int>({512, a, 'x' - '!' + 256}));
}

TEST(BytePairEncodingTest, EqualsThePlainAlgorithm) {
  std::mt19937 random(7);
  // Random merges over three letters, each of two earlier tokens.
  std::vector<std::pair<std::string, int>> spellings = {{"a", 'a' - '!'},
                                                        {"b", 'b' - '!'},
                                                        {"c", 'c' - '!'},
                                                        {"a</w>", 'a' - '!' + 256},
                                                        {"b</w>", 'b' - '!' + 256}};
  std::string file;
  std::map<std::pair<int, int>, int> merges;
  std::map<std::string, int> known(spellings.begin(), spellings.end());
  while (merges.size() < 60) {
    const auto left = spellings[random() % spellings.size()];
    const auto right = spellings[random() % spellings.size()];
    const std::string made = left.first + right.first;
    if (left.first.ends_with("</w>") || made.size() > 12 || known.contains(made)) continue;
    const int token = 512 + static_cast<int>(merges.size());
    merges[{left.second, right.second}] = token;
    known[made] = token;
    spellings.emplace_back(made, token);
    file += left.first + " " + right.first + "\n";
  }
  const BytePairEncoding encoding = FromMerges(file, 60);
  for (int round = 0; round < 2000; ++round) {
    std::string word(1 + random() % 40, ' ');
    std::generate(word.begin(), word.end(), [&] { return "abc"[random() % 3]; });
    std::vector<int> symbols(word.begin(), word.end());
    for (int& symbol : symbols) symbol -= '!';
    symbols.back() += 256;
    ASSERT_EQ(Encode(encoding, word), PlainEncode(symbols, merges)) << word;
  }
}

TEST(BytePairEncodingTest, ClipsVocabularyIsWhole) {
  auto encoding = BytePairEncoding::FromGzip(EmbeddedClipMergesGz(), kClipMerges);
  ASSERT_TRUE(encoding.ok()) << encoding.status();
  EXPECT_EQ(encoding->size(), 49406);
  EXPECT_EQ(Encode(*encoding, "photograph"), std::vector<int>({8853}));
}

TEST(BytePairEncodingMalformed, TruncatedGzip) {
  const auto status =
      BytePairEncoding::FromGzip(EmbeddedClipMergesGz().substr(0, 1000), kClipMerges);
  EXPECT_EQ(status.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BytePairEncodingMalformed, NotGzip) {
  const auto status = BytePairEncoding::FromGzip("hello", 1);
  EXPECT_EQ(status.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BytePairEncodingMalformed, TooFewMerges) {
  const auto status = BytePairEncoding::FromGzip(Gzip("header\na b"), 2);
  EXPECT_THAT(status.status().message(), HasSubstr("only 1 of 2"));
}

TEST(BytePairEncodingMalformed, MergeOfAnUnknownToken) {
  const auto status = BytePairEncoding::FromGzip(Gzip("header\nab c\n"), 1);
  EXPECT_THAT(status.status().message(), HasSubstr("not of two earlier tokens"));
}

TEST(BytePairEncodingMalformed, TheSameMergeTwice) {
  const auto status = BytePairEncoding::FromGzip(Gzip("header\na b\na b\n"), 2);
  EXPECT_THAT(status.status().message(), HasSubstr("makes a known token"));
}

}  // namespace
}  // namespace distorch::text
