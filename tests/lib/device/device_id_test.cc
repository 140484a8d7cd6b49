#include "lib/device/device_id.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;

TEST(DeviceIdTest, ParsesNamesAndPrintsThemBack) {
  const struct {
    std::string text, type, printed;
    int index;
  } kCases[] = {
      {"cpu", "cpu", "cpu", 0},           {"disk", "disk", "disk", 0},
      {"cuda:0", "cuda", "cuda:0", 0},    {"cuda", "cuda", "cuda:0", 0},
      {"cuda:12", "cuda", "cuda:12", 12}, {"mps", "mps", "mps:0", 0},
      {"xpu:3", "xpu", "xpu:3", 3},       {"cuda:127", "cuda", "cuda:127", 127},
  };
  for (const auto& c : kCases) {
    const auto id = ParseDeviceId(c.text);
    ASSERT_TRUE(id.ok()) << id.status();
    EXPECT_EQ(id->type, c.type);
    EXPECT_EQ(id->index, c.index);
    EXPECT_EQ(id->ToString(), c.printed);
    EXPECT_EQ(*ParseDeviceId(id->ToString()), *id);
  }
}

TEST(DeviceIdTest, RefusesEverythingElse) {
  for (const std::string text : {"",
                                 " ",
                                 ":",
                                 ":0",
                                 "cuda:",
                                 "cuda:-1",
                                 "cuda:+1",
                                 "cuda:00",
                                 "cuda:01",
                                 "cuda:1x",
                                 "cuda:0:1",
                                 "cuda:128",
                                 "cuda:99999999999999999999",
                                 "cuda 0",
                                 " cuda:0",
                                 "cuda:0 ",
                                 "CUDA:0",
                                 "cpu:0",
                                 "cpu:1",
                                 "disk:0",
                                 "cuda0",
                                 "0",
                                 "c\xc3\xbc",
                                 "cuda:0.0"}) {
    const auto id = ParseDeviceId(text);
    EXPECT_EQ(id.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(id.status().message()), HasSubstr("is not a device")) << text;
  }
}

TEST(DeviceIdTest, MessagesStayShortAndPrintable) {
  const auto id = ParseDeviceId(std::string(100'000, '\n'));
  EXPECT_LT(id.status().message().size(), 500u);
  EXPECT_TRUE(
      std::ranges::all_of(id.status().message(), [](char c) { return c >= ' ' && c <= '~'; }));
}

TEST(DeviceIdTest, OrdersAcceleratorsByTypeAndIndexAndCpuLast) {
  const std::vector<DeviceId> sorted = {
      {"cuda", 0}, {"cuda", 2}, {"cuda", 10}, {"xpu", 0}, {"cpu", 0}};
  std::vector<DeviceId> shuffled = {sorted[4], sorted[2], sorted[3], sorted[0], sorted[1]};
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(shuffled, sorted);
}

TEST(ParseByteSizeTest, TakesUnitsOf1024) {
  constexpr int64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024;
  const struct {
    std::string text;
    int64_t bytes;
  } kCases[] = {
      {"0", 0},
      {"123456", 123456},
      {"7b", 7},
      {"64k", 64 * kKiB},
      {"64KB", 64 * kKiB},
      {"500MB", 500 * kMiB},
      {"500MiB", 500 * kMiB},
      {"8GiB", 8 * kGiB},
      {"8g", 8 * kGiB},
      {"2.5gb", 5 * kGiB / 2},
      {" 2.5 GB ", 5 * kGiB / 2},
      {".5k", 512},
      {"1.k", 1024},
      {"1.5", 1},
      {"1tb", 1024 * kGiB},
      {"9223372036854775807", std::numeric_limits<int64_t>::max()},
      {"8388607TiB", 8388607 * (1024 * kGiB)},
  };
  for (const auto& c : kCases) {
    const auto bytes = ParseByteSize(c.text);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_EQ(*bytes, c.bytes) << c.text;
  }
}

TEST(ParseByteSizeTest, SaysWhatIsWrong) {
  const struct {
    std::string text, says;
  } kCases[] = {
      {"", "is not an amount"},
      {"gb", "is not an amount"},
      {".", "is not an amount"},
      {"..5gb", "is not an amount"},
      {"1.2.3gb", "is not an amount"},
      {"1e3", "is not an amount"},
      {"1gbb", "is not an amount"},
      {"1bi", "is not an amount"},
      {"1i", "is not an amount"},
      {"1pb", "is not an amount"},
      {"0x10", "is not an amount"},
      {"nan", "is not an amount"},
      {"inf", "is not an amount"},
      {"1 000", "is not an amount"},
      {"+1gb", "is not an amount"},
      {"-1gb", "is negative"},
      {"-0", "is negative"},
      {"9223372036854775808", "is too large"},
      {"8388608TiB", "is too large"},
      {"8388608.0TiB", "is too large"},
      {"99999999999999999999999gb", "is too large"},
      {std::string(400, '9') + ".5gb", "is too large"},
  };
  for (const auto& c : kCases) {
    const auto bytes = ParseByteSize(c.text);
    EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_THAT(std::string(bytes.status().message()), HasSubstr(c.says)) << c.text;
  }
}

TEST(FormatBytesTest, PicksTheUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(96), "96 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(1024 * 1024 - 1), "1.00 MiB");
  EXPECT_EQ(FormatBytes(1739461755), "1.62 GiB");
  EXPECT_EQ(FormatBytes(-1536), "-1.50 KiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::max()), "8.00 EiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::min()), "-8.00 EiB");
}

}  // namespace
}  // namespace distorch
