#include "lib/device/links.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace distorch {
namespace {

using ::testing::HasSubstr;

const DeviceId kCpu{}, kCuda0{"cuda", 0}, kCuda1{"cuda", 1};
const std::vector<DeviceId> kDevices = {kCuda0, kCuda1, kCpu};

TEST(LinksTest, ParsesRatesLatenciesAndDirections) {
  const auto links = ParseLinks(
      "cuda:0-cpu=12GB/s,20us; cuda:0->cuda:1 = 1.5 GiB/s ;disk-cpu=500MB/s,1ms;", kDevices);
  ASSERT_TRUE(links.ok()) << links.status();
  EXPECT_EQ(links->entries().size(), 5u);
  for (const auto& [from, to] : {std::pair(kCuda0, kCpu), std::pair(kCpu, kCuda0)}) {
    ASSERT_NE(links->Find(from, to), nullptr);
    EXPECT_EQ(links->Find(from, to)->bytes_per_second, 12e9);
    EXPECT_DOUBLE_EQ(links->Find(from, to)->latency_seconds, 20e-6);
  }
  EXPECT_EQ(links->Find(kCuda0, kCuda1)->bytes_per_second, 1.5 * (1 << 30));
  EXPECT_EQ(links->Find(kCuda0, kCuda1)->latency_seconds, 0);
  EXPECT_EQ(links->Find(kCuda1, kCuda0), nullptr) << "one way only";
  EXPECT_DOUBLE_EQ(links->Seconds(kDisk, kCpu, 500'000'000), 1.001);
  EXPECT_EQ(links->Seconds(kCpu, kCpu, 1), 0);
  EXPECT_EQ(links->Seconds(kCuda1, kCpu, 1), 0);
  EXPECT_TRUE(ParseLinks("", kDevices)->entries().empty());
}

TEST(LinksTest, ErrorsNameThePieceAndWhatIsAllowed) {
  const std::pair<std::string, std::string> cases[] = {
      {"cuda:0-cpu", "expected A-B=RATE[,LATENCY]"},
      {"cuda:0=1GB/s", "expected two devices"},
      {"cuda:7-cpu=1GB/s", "unknown device 'cuda:7'; known devices: cuda:0, cuda:1, cpu, disk"},
      {"cuda:0-gpu!=1GB/s", "unknown device 'gpu!'"},
      {"cpu-cpu=1GB/s", "no link to itself"},
      {"cuda:0-cpu=", "is not a rate"},
      {"cuda:0-cpu=12", "'12' is not a rate such as 12GB/s"},
      {"cuda:0-cpu=12GB", "is not a rate"},
      {"cuda:0-cpu=0GB/s", "above 0"},
      {"cuda:0-cpu=-1GB/s", "is not a rate"},
      {"cuda:0-cpu=infGB/s", "is not a rate"},
      {"cuda:0-cpu=nanGB/s", "is not a rate"},
      {"cuda:0-cpu=1e300TB/s", "is not a rate"},
      {"cuda:0-cpu=1iB/s", "is not a rate"},
      {"cuda:0-cpu=1xGB/s", "is not a rate"},
      {"cuda:0-cpu=1kmB/s", "is not a rate"},
      {"cuda:0-cpu=1GB/s,20", "'20' is not a latency such as 20us"},
      {"cuda:0-cpu=1GB/s,-1us", "is not a latency"},
      {"cuda:0-cpu=1GB/s,1h", "is not a latency"},
      {"cuda:0-cpu=1GB/s,inf", "is not a latency"},
      {"cuda:0-cpu=1GB/s;cpu->cuda:0=2GB/s", "'cpu->cuda:0=2GB/s': the link has a speed already"},
  };
  for (const auto& [text, message] : cases) {
    const auto links = ParseLinks(text, kDevices);
    EXPECT_EQ(links.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(links.status().message()), HasSubstr(message)) << text;
  }
}

}  // namespace
}  // namespace distorch
