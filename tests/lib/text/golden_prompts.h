// The prompts of tests/golden/tokens.json with the chunks that the reference makes of them.
#ifndef TESTS_LIB_TEXT_GOLDEN_PROMPTS_H_
#define TESTS_LIB_TEXT_GOLDEN_PROMPTS_H_

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "lib/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace distorch::text {

inline nlohmann::json ReadGolden(const std::string& name) {
  std::ifstream file(std::string(DISTORCH_GOLDEN_DIR) + "/" + name);
  return nlohmann::json::parse(file);
}

// Chunks stored as [id, weight] or, with equal neighbours folded, [id, weight, repeat].
inline TokenChunks ChunksFromJson(const nlohmann::json& json) {
  TokenChunks chunks;
  for (const auto& stored : json) {
    auto& chunk = chunks.emplace_back();
    for (const auto& token : stored) {
      const int repeat = token.size() > 2 ? token[2].get<int>() : 1;
      chunk.insert(chunk.end(), repeat, {token[0].get<int>(), token[1].get<double>()});
    }
  }
  return chunks;
}

// tokens.json has weights with six decimals.
inline void ExpectSameChunks(const TokenChunks& actual, const TokenChunks& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t chunk = 0; chunk < actual.size(); ++chunk) {
    ASSERT_EQ(actual[chunk].size(), expected[chunk].size());
    for (size_t i = 0; i < actual[chunk].size(); ++i) {
      ASSERT_EQ(actual[chunk][i].id, expected[chunk][i].id) << "chunk " << chunk << ", token " << i;
      ASSERT_NEAR(actual[chunk][i].weight, expected[chunk][i].weight, 5e-7)
          << "chunk " << chunk << ", token " << i;
    }
  }
}

}  // namespace distorch::text

#endif  // TESTS_LIB_TEXT_GOLDEN_PROMPTS_H_
