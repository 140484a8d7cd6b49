#include "lib/distorch/stream_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace distorch {
namespace {

// Uses letters; what Use said: a digit for what was left out, '-' for nothing expected.
std::string Uses(StreamOrder* order, const std::string& letters) {
  static const char kLetters[26] = {};
  std::string said;
  for (const char c : letters) {
    const auto skipped = order->Use(&kLetters[c - 'A']);
    said += skipped ? static_cast<char>('0' + *skipped) : '-';
  }
  return said;
}

TEST(StreamOrderTest, KnowsARoundOnceItRepeats) {
  StreamOrder order;
  EXPECT_EQ(Uses(&order, "ABCABCABC"), "-----0000");
  EXPECT_EQ(order.round().size(), 3u);
  EXPECT_EQ(order.position(), 0u);
}

TEST(StreamOrderTest, WhatGoesBeforeTheFirstRoundIsNotOfIt) {
  StreamOrder order;
  EXPECT_EQ(Uses(&order, "XABABAB"), "-----00");
  EXPECT_EQ(order.round().size(), 2u);
}

TEST(StreamOrderTest, ThingsMayBeUsedSeveralTimesInARound) {
  StreamOrder order;
  EXPECT_EQ(Uses(&order, "ABACABACABAC"), "------000000");
  EXPECT_EQ(order.round().size(), 4u);
}

TEST(StreamOrderTest, ARoundMayBeOneThing) {
  StreamOrder order;
  EXPECT_EQ(Uses(&order, "AAAAA"), "---00");
  EXPECT_EQ(order.round().size(), 1u);
}

TEST(StreamOrderTest, PassesMayEndEarlyOrLeaveThingsOut) {
  StreamOrder order;
  EXPECT_EQ(Uses(&order, "ABCDABCDAB"), "------0000");
  EXPECT_EQ(Uses(&order, "ABCD"), "2000") << "C and D of the pass before never came";
  EXPECT_EQ(Uses(&order, "ACDABCD"), "0100000");
}

TEST(StreamOrderTest, AnotherOrderIsLearnedAnew) {
  StreamOrder order;
  Uses(&order, "ABCABC");
  EXPECT_EQ(Uses(&order, "XYZXYZ"), "-----0");
  EXPECT_EQ(order.round().size(), 3u);
}

}  // namespace
}  // namespace distorch
