#include "lib/distorch/allocation.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/distorch/planner.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;
const DeviceId kCpu{"cpu", 0}, kCuda0{"cuda", 0}, kCuda1{"cuda", 1}, kMps{"mps", 0};

std::vector<DeviceMemory> Devices() {
  return {{kCuda0, 8 * kGiB}, {kCuda1, 12 * kGiB}, {kMps, 16 * kGiB}, {kCpu, 64 * kGiB}};
}

AllocationFields Expert(std::string text) {
  return {.compute_device = "cuda:0", .expert_mode_allocations = std::move(text)};
}

struct Piece {
  DeviceId device;
  double amount;
  bool wildcard = false;
};

void ExpectEntries(const Allocation& allocation, const std::vector<Piece>& expected,
                   const std::string& text) {
  ASSERT_EQ(allocation.entries.size(), expected.size()) << text;
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(allocation.entries[i].device, expected[i].device) << text;
    EXPECT_DOUBLE_EQ(allocation.entries[i].amount, expected[i].amount) << text;
    EXPECT_EQ(allocation.entries[i].wildcard, expected[i].wildcard) << text;
  }
}

TEST(ParseAllocationTest, DiskDonatesWhateverIsAskedButCannotCompute) {
  const std::vector<DeviceMemory> devices = WithDisk(Devices());
  const auto shares = ParseAllocation(Expert("cuda:0,70%;disk,30%"), devices);
  ASSERT_TRUE(shares.ok()) << shares.status();
  ExpectEntries(*shares, {{kCuda0, 70}, {kDisk, 30}}, "shares");
  EXPECT_TRUE(ParseAllocation(Expert("disk,9000gb;cuda:0,*"), devices).ok());
  EXPECT_TRUE(ParseAllocation(Expert("cuda:0,1gb;disk,*"), devices).ok());
  EXPECT_TRUE(
      ParseAllocation({.compute_device = "cuda:0", .donor_device = "cpu,disk"}, devices).ok());
  EXPECT_THAT(std::string(ParseAllocation(Expert("disk,0.5"), devices).status().message()),
              HasSubstr("disk has none"));
  EXPECT_THAT(std::string(ParseAllocation({.compute_device = "disk"}, devices).status().message()),
              HasSubstr("unet_compute_device: disk cannot compute"));

  const std::vector<Block> blocks(10, {"block", kGiB, true});
  for (const PlannerMode mode : {PlannerMode::kExact, PlannerMode::kReference}) {
    const Plan plan = MakePlan(blocks, *shares, devices, {.mode = mode});
    EXPECT_EQ(plan.devices.back(), kDisk);
    EXPECT_EQ(plan.bytes.back(), 3 * kGiB);
  }
  const auto rest = ParseAllocation(Expert("cuda:0,2gb;disk,3gb"), devices);
  ASSERT_TRUE(rest.ok());
  const Plan plan = MakePlan(blocks, *rest, devices, {});
  EXPECT_EQ(plan.bytes, (std::vector<int64_t>{2 * kGiB, 0, 0, 5 * kGiB, 3 * kGiB}))
      << "the rest is the CPU's, not the disk's";
}

TEST(ParseAllocationTest, ReadsEveryKindOfExpertString) {
  const struct {
    std::string text;
    AllocationMode mode;
    std::vector<Piece> entries;
  } kCases[] = {
      {"cuda:0,2.5gb;cpu,*", AllocationMode::kBytes, {{kCuda0, 2.5 * kGiB}, {kCpu, 0, true}}},
      {"cuda:0,500mb;cuda:1,3.0g;cpu,5gb*",
       AllocationMode::kBytes,
       {{kCuda0, 500.0 * (1 << 20)}, {kCuda1, 3.0 * kGiB}, {kCpu, 0, true}}},
      {"cuda:0,64k;cpu,*", AllocationMode::kBytes, {{kCuda0, 65536}, {kCpu, 0, true}}},
      {"cuda:0,7*", AllocationMode::kBytes, {{kCuda0, 0, true}}},
      {"cpu,9999gb*;cuda:0,1b", AllocationMode::kBytes, {{kCpu, 0, true}, {kCuda0, 1}}},
      {"cuda:0,0b", AllocationMode::kBytes, {{kCuda0, 0}}},
      {"cuda,8GiB", AllocationMode::kBytes, {{kCuda0, 8.0 * kGiB}}},
      {"cuda:0,8%;cuda:1,8%;cpu,4%", AllocationMode::kRatio, {{kCuda0, 8}, {kCuda1, 8}, {kCpu, 4}}},
      {"cuda:0,150%;cpu,0%", AllocationMode::kRatio, {{kCuda0, 150}, {kCpu, 0}}},
      {"cuda:0,0.1;cpu,0.5", AllocationMode::kFraction, {{kCuda0, 0.1}, {kCpu, 0.5}}},
      {"cuda:0,1;cpu,0", AllocationMode::kFraction, {{kCuda0, 1}, {kCpu, 0}}},
      {"cuda:0,.25", AllocationMode::kFraction, {{kCuda0, 0.25}}},
      // Letters of a device's name are not units.
      {"mps,0.5;cpu,0.5", AllocationMode::kFraction, {{kMps, 0.5}, {kCpu, 0.5}}},
      {"mps,50%;cpu,50%", AllocationMode::kRatio, {{kMps, 50}, {kCpu, 50}}},
      // Spaces, case and one trailing ';'.
      {"  cuda:0 , 2.5 GB ;\n cpu ,\t* ; ",
       AllocationMode::kBytes,
       {{kCuda0, 2.5 * kGiB}, {kCpu, 0, true}}},
      {"cuda:0,70 %;cpu,30%;", AllocationMode::kRatio, {{kCuda0, 70}, {kCpu, 30}}},
  };
  for (const auto& c : kCases) {
    const auto allocation = ParseAllocation(Expert(c.text), Devices());
    ASSERT_TRUE(allocation.ok()) << allocation.status();
    EXPECT_EQ(allocation->mode, c.mode) << c.text;
    EXPECT_EQ(allocation->compute_device, kCuda0);
    ExpectEntries(*allocation, c.entries, c.text);
  }
}

TEST(ParseAllocationTest, ReadsVirtualVram) {
  AllocationFields fields{
      .compute_device = "cuda:0", .virtual_vram_gb = 8, .donor_device = "cuda:1, cpu"};
  auto allocation = ParseAllocation(fields, Devices());
  ASSERT_TRUE(allocation.ok()) << allocation.status();
  EXPECT_EQ(allocation->mode, AllocationMode::kVirtualVram);
  EXPECT_EQ(allocation->virtual_vram_bytes, 8 * kGiB);
  ExpectEntries(*allocation, {{kCuda1, 0}, {kCpu, 0}}, "donors");

  // More than anything holds is fine, and so is a compute device that donates to itself.
  fields = {.compute_device = "cpu", .virtual_vram_gb = 128, .donor_device = "cpu"};
  allocation = ParseAllocation(fields, Devices());
  ASSERT_TRUE(allocation.ok()) << allocation.status();
  EXPECT_EQ(allocation->virtual_vram_bytes, 128 * kGiB);

  fields = {.compute_device = "cuda:0", .virtual_vram_gb = 0, .donor_device = ""};
  allocation = ParseAllocation(fields, Devices());
  ASSERT_TRUE(allocation.ok()) << allocation.status();
  EXPECT_TRUE(allocation->entries.empty());
}

TEST(ParseAllocationTest, ExpertStringWinsOverVirtualVram) {
  AllocationFields fields = Expert("cuda:0,25%;cpu,75%");
  fields.virtual_vram_gb = 4;
  auto allocation = ParseAllocation(fields, Devices());
  ASSERT_TRUE(allocation.ok()) << allocation.status();
  EXPECT_EQ(allocation->mode, AllocationMode::kRatio);
  EXPECT_EQ(allocation->virtual_vram_bytes, 0);

  fields.expert_mode_allocations = " \t";
  allocation = ParseAllocation(fields, Devices());
  ASSERT_TRUE(allocation.ok()) << allocation.status();
  EXPECT_EQ(allocation->mode, AllocationMode::kVirtualVram);
}

TEST(ParseAllocationTest, ExpertErrorsNameFieldPieceAndReason) {
  const struct {
    std::string text, piece, reason;
  } kCases[] = {
      {"cuda:7,1gb;cpu,*", "piece 1 'cuda:7,1gb'",
       "unknown device 'cuda:7'; known devices: cuda:0, cuda:1, mps:0, cpu"},
      {"cuda:0,1gb;gpu0,1gb", "piece 2 'gpu0,1gb'", "'gpu0' is not a device"},
      {"cuda:0,1gb;,1gb", "piece 2 ',1gb'", "'' is not a device"},
      {"cuda:0", "piece 1 'cuda:0'", "write device,amount"},
      {"cuda:0,1gb#cuda:0", "piece 1 'cuda:0,1gb#cuda:0'", "malformed"},
      {";", "piece 1 ''", "write device,amount"},
      {"cuda:0,1gb;;cpu,*", "piece 2 ''", "write device,amount"},
      {"cuda:0,1gb;;", "piece 2 ''", "write device,amount"},
      {"cuda:0,", "piece 1 'cuda:0,'", "amount '' is malformed; allowed are bytes"},
      {"cuda:0,%", "piece 1 'cuda:0,%'", "malformed"},
      {"cuda:0,5%*", "piece 1 'cuda:0,5%*'", "is not an amount of bytes"},
      {"cuda:0,**", "piece 1 'cuda:0,**'", "is not an amount of bytes"},
      {"cuda:0,1,5gb", "piece 1 'cuda:0,1,5gb'", "is not an amount of bytes"},
      {"cuda:0,lots", "piece 1 'cuda:0,lots'", "is not an amount of bytes"},
      {"cuda:0,1.2.3", "piece 1 'cuda:0,1.2.3'", "malformed"},
      {"cuda:0,1e-1", "piece 1 'cuda:0,1e-1'", "malformed"},
      {"cuda:0,inf", "piece 1 'cuda:0,inf'", "is not an amount of bytes"},
      {"cuda:0,inf%", "piece 1 'cuda:0,inf%'", "malformed"},
      {"cuda:0,nan%", "piece 1 'cuda:0,nan%'", "malformed"},
      {"cuda:0,-1gb", "piece 1 'cuda:0,-1gb'", "is negative"},
      {"cuda:0,50%;cpu,-50%", "piece 2 'cpu,-50%'", "is negative"},
      {"cuda:0,-0.5", "piece 1 'cuda:0,-0.5'", "is negative"},
      {"cuda:0,99999999999999999999gb", "piece 1", "is too large"},
      {"cuda:0," + std::string(400, '9') + "%", "piece 1 'cuda:0,9999", "is too large"},
      {"cuda:0,1gb;cpu,50%", "piece 2 'cpu,50%'",
       "another kind (ratio) than the pieces before (bytes)"},
      {"cuda:0,0.5;cpu,*", "piece 2 'cpu,*'",
       "another kind (bytes) than the pieces before (fraction)"},
      {"cuda:0,50%;cpu,0.5", "piece 2 'cpu,0.5'",
       "another kind (fraction) than the pieces before (ratio)"},
      {"cuda:0,1gb;cuda:0,2gb", "piece 2 'cuda:0,2gb'", "cuda:0 is named twice"},
      {"cuda,1gb;cuda:0,2gb", "piece 2 'cuda:0,2gb'", "cuda:0 is named twice"},
      {"cuda:0,*;cpu,*", "piece 2 'cpu,*'", "second wildcard"},
      {"cuda:0,0%;cpu,0%", "'cuda:0,0%;cpu,0%'", "all shares are zero"},
      {"cuda:0,0.0", "'cuda:0,0.0'", "all shares are zero"},
      {"cuda:0,1.5", "piece 1 'cuda:0,1.5'", "fraction 1.5 is above 1"},
      {"cuda:0,50", "piece 1 'cuda:0,50'", "write 50% for a share of the model"},
      {"cuda:0,8.1gb", "piece 1 'cuda:0,8.1gb'",
       "8.10 GiB is more than cuda:0 has in all, 8.00 GiB"},
  };
  for (const auto& c : kCases) {
    const auto allocation = ParseAllocation(Expert(c.text), Devices());
    ASSERT_EQ(allocation.status().code(), absl::StatusCode::kInvalidArgument) << c.text;
    const std::string message(allocation.status().message());
    EXPECT_THAT(message, HasSubstr("unet_expert_mode_allocations: " + c.piece)) << c.text;
    EXPECT_THAT(message, HasSubstr(c.reason)) << c.text;
  }
}

TEST(ParseAllocationTest, SharesWhoseSumOverflowsAreRefused) {
  const std::string huge = "9" + std::string(307, '9') + "%";  // 1e308
  const auto allocation = ParseAllocation(Expert("cuda:0," + huge + ";cpu," + huge), Devices());
  ASSERT_EQ(allocation.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(allocation.status().message()),
              HasSubstr("sum of the shares is too large"));
}

TEST(ParseAllocationTest, OtherFieldsErrorsNameThemselves) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const struct {
    AllocationFields fields;
    std::string says;
  } kCases[] = {
      {{.compute_device = "cuda:5"},
       "unet_compute_device: unknown device 'cuda:5'; known devices: cuda:0"},
      {{.compute_device = ""}, "unet_compute_device: '' is not a device"},
      {{.field_prefix = "clip", .compute_device = "gpu!"},
       "clip_compute_device: 'gpu!' is not a device"},
      {{.compute_device = "cpu", .virtual_vram_gb = -0.1},
       "unet_virtual_vram_gb: -0.1 is not between 0 and 128"},
      {{.compute_device = "cpu", .virtual_vram_gb = 128.5},
       "unet_virtual_vram_gb: 128.5 is not between 0 and 128"},
      {{.compute_device = "cpu", .virtual_vram_gb = nan},
       "unet_virtual_vram_gb: nan is not between 0 and 128"},
      {{.compute_device = "cpu", .virtual_vram_gb = HUGE_VAL},
       "unet_virtual_vram_gb: inf is not between 0 and 128"},
      {{.compute_device = "cpu", .virtual_vram_gb = 1, .donor_device = ""},
       "unet_donor_device: donor 1 ''"},
      {{.compute_device = "cpu", .virtual_vram_gb = 1, .donor_device = "cuda:1,"},
       "unet_donor_device: donor 2 ''"},
      {{.field_prefix = "clip", .compute_device = "cpu", .donor_device = "cuda:1,cuda:9"},
       "clip_donor_device: donor 2 'cuda:9': unknown device 'cuda:9'; known devices: cuda:0"},
      {{.compute_device = "cpu", .donor_device = "cpu,cuda,cuda:0"},
       "unet_donor_device: donor 3 'cuda:0': device is named twice"},
      {{.compute_device = "cpu", .donor_device = "cuda:9", .expert_mode_allocations = "cpu,100%"},
       "unet_donor_device: donor 1 'cuda:9'"},
  };
  for (const auto& c : kCases) {
    const auto allocation = ParseAllocation(c.fields, Devices());
    ASSERT_EQ(allocation.status().code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(allocation.status().message()), HasSubstr(c.says));
  }
}

TEST(ParseAllocationTest, MessagesStayShort) {
  const auto allocation =
      ParseAllocation(Expert("cuda:0," + std::string(1'000'000, 'x')), Devices());
  ASSERT_EQ(allocation.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_LT(allocation.status().message().size(), 1000u);
}

TEST(FormatAllocationTest, WritesTheOneLineForm) {
  EXPECT_EQ(FormatAllocation({.compute_device = "cuda:0", .virtual_vram_gb = 4}),
            "#cuda:0;4.0;cpu");
  EXPECT_EQ(FormatAllocation(
                {.compute_device = "cuda:0", .virtual_vram_gb = 0.1, .donor_device = "cuda:1,cpu"}),
            "#cuda:0;0.1;cuda:1,cpu");
  EXPECT_EQ(FormatAllocation(Expert("cuda:0,25%;cpu,75%")), "cuda:0,25%;cpu,75%#cuda:0;0.0;cpu");
}

TEST(AllocationModeNameTest, NamesEveryMode) {
  EXPECT_EQ(AllocationModeName(AllocationMode::kVirtualVram), "virtual VRAM");
  EXPECT_EQ(AllocationModeName(AllocationMode::kBytes), "bytes");
  EXPECT_EQ(AllocationModeName(AllocationMode::kRatio), "ratio");
  EXPECT_EQ(AllocationModeName(AllocationMode::kFraction), "fraction");
}

}  // namespace
}  // namespace distorch
