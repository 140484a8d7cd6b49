#include "server/request_ids.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace distorch {
namespace {

using ::testing::MatchesRegex;

constexpr char kGiven[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
constexpr char kMadeUp[] = "00-[0-9a-f]{32}-[0-9a-f]{16}-00";

TEST(RequestIdsTest, KeepsWhatIsWellFormed) {
  const RequestIds ids = MakeRequestIds("job-17", kGiven);
  EXPECT_EQ(ids.request_id, "job-17");
  EXPECT_EQ(ids.traceparent, kGiven);
  EXPECT_EQ(ids.trace_id(), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(MakeRequestIds("", kGiven).request_id, "0af7651916cd43dd8448eb211c80319c");
}

TEST(RequestIdsTest, CutsLaterVersions) {
  EXPECT_EQ(MakeRequestIds("", "cc" + std::string(kGiven).substr(2) + "-more").traceparent, kGiven);
}

TEST(RequestIdsTest, ReplacesWhatIsAbsentOrMalformed) {
  const std::string given = kGiven;
  for (const std::string& bad :
       {std::string(), std::string("x"), given.substr(0, 54), given + "-more", given + "0",
        "ff" + given.substr(2), "cc" + given.substr(2) + "more", "0G" + given.substr(2),
        "00_" + given.substr(3),
        std::string("00-0AF7651916CD43DD8448EB211C80319C") + given.substr(35),
        "00-00000000000000000000000000000000" + given.substr(35),
        given.substr(0, 36) + "0000000000000000-01", std::string(10'000, '0')}) {
    const RequestIds ids = MakeRequestIds("", bad);
    EXPECT_THAT(ids.traceparent, MatchesRegex(kMadeUp)) << bad;
    EXPECT_EQ(ids.request_id, ids.trace_id());
  }
  EXPECT_NE(MakeRequestIds("", "").traceparent, MakeRequestIds("", "").traceparent);
  for (const std::string& bad : {std::string("a b"), std::string(129, 'x'), std::string("a\n")})
    EXPECT_EQ(MakeRequestIds(bad, kGiven).request_id, "0af7651916cd43dd8448eb211c80319c");
}

}  // namespace
}  // namespace distorch
