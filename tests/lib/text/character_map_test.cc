#include "lib/text/character_map.h"

#include <gtest/gtest.h>

#include <string>

namespace distorch::text {
namespace {

// T5's own map is tested through its tokenizer. This one: the root and one leaf, "a" -> "bc".
std::string SmallMap() {
  const auto word = [](uint32_t value) {
    std::string bytes;
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
    return bytes;
  };
  constexpr uint32_t kUnits = 128;
  std::string trie;
  for (uint32_t i = 0; i < kUnits; ++i) {
    uint32_t unit = 0x80000000;  // labels that match nothing
    if (i == 0) unit = 0;
    if (i == 'a') unit = (1 << 10) | (1 << 8) | 'a';  // its leaf is at 'a' ^ 1
    if (i == ('a' ^ 1)) unit = 0x80000000 | 0;        // the replacement at 0
    trie += word(unit);
  }
  return word(4 * kUnits) + trie + std::string("bc\0", 3);
}

TEST(CharacterMapTest, ReplacesWhatItHas) {
  const auto map = CharacterMap::Parse(SmallMap());
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_EQ(map->Apply("xaya"), "xbcybc");
  EXPECT_EQ(map->Apply(""), "");
  EXPECT_EQ(map->Apply(std::string_view("\0a", 2)), std::string("\0bc", 3));
}

TEST(CharacterMapTest, TheRestOfACharacterThatBeginsWithAnEntryIsDropped) {
  const auto map = CharacterMap::Parse(SmallMap());
  ASSERT_TRUE(map.ok());
  EXPECT_EQ(map->Apply("a\u0301x"), "bcx");
  // Not of a long one.
  EXPECT_EQ(map->Apply("a\u0301\u0301\u0301"), "bc\u0301\u0301\u0301");
}

TEST(CharacterMapTest, CutMapsAreRefused) {
  const std::string whole = SmallMap();
  for (size_t bytes : {size_t{0}, size_t{3}, size_t{4}, size_t{100}}) {
    EXPECT_FALSE(CharacterMap::Parse(whole.substr(0, bytes)).ok()) << bytes;
  }
  EXPECT_FALSE(CharacterMap::Parse(std::string(8, '\0')).ok());
  // Without replacements, entries have none.
  const auto bare = CharacterMap::Parse(whole.substr(0, whole.size() - 3));
  ASSERT_TRUE(bare.ok());
  EXPECT_EQ(bare->Apply("a"), "a");
}

}  // namespace
}  // namespace distorch::text
