// The prompts of tests/golden/tokens.json with the chunks that the reference makes of them.
#ifndef TESTS_LIB_TEXT_GOLDEN_PROMPTS_H_
#define TESTS_LIB_TEXT_GOLDEN_PROMPTS_H_

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

}  // namespace distorch::text

#endif  // TESTS_LIB_TEXT_GOLDEN_PROMPTS_H_
