// Properties of plans over random models, devices and allocations (seeded: every run sees the
// same).
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "lib/distorch/allocation.h"
#include "lib/distorch/planner.h"
#include "tests/lib/distorch/plan_checker.h"

namespace distorch {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

class Generator {
 public:
  explicit Generator(uint32_t seed) : random_(seed) {}

  int64_t Between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  bool OneIn(int n) { return Between(1, n) == 1; }

  std::vector<Block> Blocks() {
    std::vector<Block> blocks(Between(0, 200));
    for (size_t i = 0; i < blocks.size(); ++i) {
      const int magnitude = static_cast<int>(Between(0, 28));
      blocks[i] = {.name = absl::StrCat(OneIn(20) ? "Token_EMBEDding." : "block.", i),
                   .bytes = OneIn(15) ? 0 : Between(1, int64_t{2} << magnitude),
                   .has_bias_member = !OneIn(8)};
    }
    return blocks;
  }

  std::vector<DeviceMemory> Devices() {
    std::vector<DeviceMemory> devices;
    if (!OneIn(20)) devices.push_back({{"cpu", 0}, Between(1, 64 * kGiB)});
    const int64_t accelerators = Between(devices.empty() ? 1 : 0, 4);
    for (int i = 0; i < accelerators; ++i) {
      devices.push_back({{OneIn(4) ? "mps" : "cuda", i}, Between(1, 24 * kGiB)});
    }
    std::shuffle(devices.begin(), devices.end(), random_);
    return devices;
  }

  AllocationFields Fields(const std::vector<DeviceMemory>& devices) {
    AllocationFields fields;
    fields.compute_device = devices[Between(0, devices.size() - 1)].device.ToString();
    const std::vector<DeviceMemory> chosen = Some(devices);
    if (OneIn(4)) {
      fields.virtual_vram_gb = static_cast<double>(Between(0, 1280)) / 1000.0;
      fields.donor_device =
          absl::StrJoin(chosen, ",", [](std::string* out, const DeviceMemory& device) {
            out->append(device.device.ToString());
          });
      return fields;
    }
    fields.donor_device = "";
    fields.expert_mode_allocations = Expert(chosen);
    return fields;
  }

 private:
  std::vector<DeviceMemory> Some(std::vector<DeviceMemory> devices) {
    std::shuffle(devices.begin(), devices.end(), random_);
    devices.resize(Between(1, devices.size()));
    return devices;
  }

  std::string Expert(const std::vector<DeviceMemory>& devices) {
    const int64_t kind = Between(0, 2);
    const int64_t wildcard = Between(0, 2 * devices.size());  // often none
    std::vector<std::string> pieces;
    for (size_t i = 0; i < devices.size(); ++i) {
      const std::string name = devices[i].device.ToString();
      if (kind == 0) {
        const int64_t asked = std::min(devices[i].total_bytes, Between(0, 512 * kMiB));
        pieces.push_back(static_cast<int64_t>(i) == wildcard ? absl::StrCat(name, ",*")
                                                             : absl::StrCat(name, ",", asked, "b"));
      } else if (kind == 1) {
        pieces.push_back(
            absl::StrCat(name, ",", Between(i == 0 ? 1 : 0, 100), ".", Between(0, 99), "%"));
      } else {
        pieces.push_back(absl::StrCat(name, ",0.0", Between(1, 999)));
      }
    }
    return absl::StrJoin(pieces, ";");
  }

  std::mt19937 random_;
};

Plan PlanOf(const std::vector<Block>& blocks, const AllocationFields& fields,
            const std::vector<DeviceMemory>& devices, const PlannerOptions& options = {}) {
  const auto allocation = ParseAllocation(fields, devices);
  EXPECT_TRUE(allocation.ok()) << allocation.status();
  return allocation.ok() ? MakePlan(blocks, *allocation, devices, options) : Plan();
}

TEST(PlannerPropertyTest, RandomPlansKeepEveryInvariant) {
  Generator generator(20240611);
  for (int i = 0; i < 6000; ++i) {
    const std::vector<Block> blocks = generator.Blocks();
    std::vector<DeviceMemory> devices = generator.Devices();
    const AllocationFields fields = generator.Fields(devices);
    const PlannerOptions options{
        .mode = generator.OneIn(2) ? PlannerMode::kExact : PlannerMode::kReference,
        .is_text_encoder = generator.OneIn(2)};
    SCOPED_TRACE(absl::StrCat("case ", i, ": ", FormatAllocation(fields)));
    const auto allocation = ParseAllocation(fields, devices);
    ASSERT_TRUE(allocation.ok()) << allocation.status();
    const Plan plan = MakePlan(blocks, *allocation, devices, options);
    ASSERT_EQ(PlanViolation(blocks, *allocation, devices, options, plan), "");

    std::reverse(devices.begin(), devices.end());
    const Plan again = MakePlan(blocks, *allocation, devices, options);
    ASSERT_EQ(again.devices, plan.devices);
    ASSERT_EQ(again.assignment, plan.assignment) << "the order of the table must not matter";
  }
}

std::vector<Block> EqualBlocks(int count, int64_t bytes) {
  std::vector<Block> blocks(count);
  for (int i = 0; i < count; ++i) blocks[i] = {.name = absl::StrCat("block.", i), .bytes = bytes};
  return blocks;
}

std::vector<DeviceMemory> TwoDevices() {
  return {{{"cuda", 0}, 8 * kGiB}, {{"cpu", 0}, 64 * kGiB}};
}

TEST(PlannerPropertyTest, MoreVirtualVramNeverLeavesMoreOnCompute) {
  const std::vector<Block> blocks = EqualBlocks(300, 7 * kMiB);
  int64_t on_compute = 300 * 7 * kMiB + 1;
  for (int tenths = 0; tenths <= 30; ++tenths) {
    const Plan plan = PlanOf(blocks, {.compute_device = "cuda:0", .virtual_vram_gb = tenths / 10.0},
                             TwoDevices());
    EXPECT_LE(plan.bytes[0], on_compute) << tenths;
    on_compute = plan.bytes[0];
    if (tenths == 0) {
      EXPECT_EQ(plan.bytes[1], 0);
    }
  }
  EXPECT_EQ(on_compute, 0);
}

TEST(PlannerPropertyTest, ALargerShareNeverHoldsLess) {
  const std::vector<Block> blocks = EqualBlocks(300, 7 * kMiB);
  int64_t on_cpu = 0;
  for (int share = 0; share <= 100; ++share) {
    const AllocationFields fields{
        .compute_device = "cuda:0",
        .expert_mode_allocations = absl::StrCat("cuda:0,", 100 - share, "%;cpu,", share, "%")};
    const Plan plan = PlanOf(blocks, fields, TwoDevices());
    EXPECT_GE(plan.bytes[1], on_cpu) << share;
    EXPECT_NEAR(static_cast<double>(plan.bytes[1]), 3.0 * share * 7 * kMiB, 7 * kMiB) << share;
    on_cpu = plan.bytes[1];
  }
}

TEST(PlannerPropertyTest, SharesAreRelative) {
  Generator generator(7);
  for (int i = 0; i < 300; ++i) {
    const std::vector<Block> blocks = generator.Blocks();
    const auto fields = [](int scale) {
      return AllocationFields{
          .compute_device = "cuda:0",
          .expert_mode_allocations = absl::StrCat("cuda:0,", 8 * scale, "%;cpu,", 2 * scale, "%")};
    };
    EXPECT_EQ(PlanOf(blocks, fields(1), TwoDevices()).assignment,
              PlanOf(blocks, fields(1024), TwoDevices()).assignment);
  }
}

TEST(PlannerPropertyTest, EverySpellingOfOneSplitGivesOnePlan) {
  // 1,536 MiB: a third of it on the accelerator, in ways that are exact in binary.
  const std::vector<Block> blocks = EqualBlocks(192, 8 * kMiB);
  const std::vector<DeviceMemory> devices = {{{"cuda", 0}, 2 * kGiB}, {{"cpu", 0}, 4 * kGiB}};
  const Plan plan = PlanOf(blocks, {.compute_device = "cuda:0", .virtual_vram_gb = 1}, devices);
  EXPECT_EQ(plan.bytes, (std::vector<int64_t>{512 * kMiB, kGiB}));
  for (const std::string expert :
       {"cuda:0,512mb;cpu,*", "cuda:0,0.5gb", "cpu,1g;cuda:0,*", "cuda:0,0.25;cpu,0.25",
        "cuda:0,512m;cpu,1024m", "cuda:0,0.25;cpu,1"}) {
    const AllocationFields fields{.compute_device = "cuda:0", .expert_mode_allocations = expert};
    EXPECT_EQ(PlanOf(blocks, fields, devices).assignment, plan.assignment) << expert;
  }
}

TEST(PlannerTest, BlocksGoFromTheTailAndLeaveTheHeadToCompute) {
  const std::vector<Block> blocks = EqualBlocks(4, kMiB);
  const AllocationFields fields{.compute_device = "cpu",
                                .expert_mode_allocations = "cuda:0,2mb;cpu,*"};
  const Plan plan = PlanOf(blocks, fields, TwoDevices());
  EXPECT_EQ(plan.assignment, (std::vector<int>{1, 1, 0, 0}));
}

TEST(PlannerTest, WhatTheQuotasLeaveGoesToCompute) {
  const std::vector<Block> blocks = EqualBlocks(10, 100 * kMiB);
  const std::vector<DeviceMemory> devices = {
      {{"cuda", 0}, kGiB}, {{"cuda", 1}, kGiB}, {{"cuda", 2}, 8 * kGiB}, {{"cpu", 0}, kGiB}};
  const AllocationFields fields{.compute_device = "cuda:1",
                                .expert_mode_allocations = "cuda:0,0.25;cuda:1,0.125;cpu,0.125"};
  const Plan plan = PlanOf(blocks, fields, devices);
  EXPECT_EQ(plan.block_count, (std::vector<int>{2, 7, 0, 1}));  // cuda:2 is not named
}

// The reference gives a device of 64 GiB quotas in steps of 6.5 MiB: 1,503 MiB become 0.0229 of it.
TEST(PlannerTest, OnlyReferenceModeRoundsQuotas) {
  const std::vector<Block> blocks = EqualBlocks(2000, kMiB);
  const AllocationFields fields{.compute_device = "cuda:0",
                                .expert_mode_allocations = "cpu,1503mb;cuda:0,*"};
  EXPECT_EQ(PlanOf(blocks, fields, TwoDevices()).block_count, (std::vector<int>{497, 1503}));
  EXPECT_EQ(PlanOf(blocks, fields, TwoDevices(), {.mode = PlannerMode::kReference}).block_count,
            (std::vector<int>{500, 1500}));
}

TEST(PlannerTest, DonorsFillInTheOrderWritten) {
  const std::vector<Block> blocks = EqualBlocks(10, 100 * kMiB);
  const std::vector<DeviceMemory> devices = {{{"cuda", 0}, 8 * kGiB},
                                             {{"cuda", 1}, 300 * kMiB},
                                             {{"cuda", 2}, 8 * kGiB},
                                             {{"cpu", 0}, 8 * kGiB}};
  AllocationFields fields{
      .compute_device = "cuda:0", .virtual_vram_gb = 0.5, .donor_device = "cuda:1,cuda:2,cpu"};
  EXPECT_EQ(PlanOf(blocks, fields, devices).block_count, (std::vector<int>{5, 3, 2, 0}));
  fields.donor_device = "cpu,cuda:1";
  EXPECT_EQ(PlanOf(blocks, fields, devices).block_count, (std::vector<int>{5, 0, 0, 5}));
}

TEST(PlannerTest, WithoutCpuTheRestOfBytesIsComputes) {
  const std::vector<Block> blocks = EqualBlocks(4, kMiB);
  const std::vector<DeviceMemory> devices = {{{"cuda", 0}, kGiB}, {{"cuda", 1}, kGiB}};
  const AllocationFields fields{
      .compute_device = "cuda:1", .donor_device = "", .expert_mode_allocations = "cuda:0,1mb"};
  EXPECT_EQ(PlanOf(blocks, fields, devices).block_count, (std::vector<int>{1, 3}));
}

TEST(PlannerTest, PinnedBlocksStayOnCompute) {
  const std::vector<Block> blocks = {{.name = "a.Token_Embedding", .bytes = 100 * kMiB},
                                     {.name = "norm", .bytes = 10 * kMiB, .has_bias_member = false},
                                     {.name = "tiny", .bytes = 100},
                                     {.name = "none", .bytes = 0},
                                     {.name = "linear", .bytes = 100 * kMiB}};
  const AllocationFields fields{.compute_device = "cuda:0", .virtual_vram_gb = 8};
  EXPECT_EQ(PlanOf(blocks, fields, TwoDevices(), {.is_text_encoder = true}).assignment,
            (std::vector<int>{0, 0, 0, 0, 1}));
  EXPECT_EQ(PlanOf(blocks, fields, TwoDevices()).assignment, (std::vector<int>{1, 0, 0, 0, 1}));
}

TEST(PlannerTest, EmbeddingsComeOffComputesQuota) {
  const std::vector<Block> blocks = {{.name = "token_embedding", .bytes = 100 * kMiB},
                                     {.name = "first", .bytes = 50 * kMiB},
                                     {.name = "second", .bytes = 50 * kMiB}};
  const AllocationFields fields{.compute_device = "cuda:0",
                                .expert_mode_allocations = "cuda:0,150mb;cpu,*"};
  EXPECT_EQ(PlanOf(blocks, fields, TwoDevices(), {.is_text_encoder = true}).assignment,
            (std::vector<int>{0, 1, 0}));
}

TEST(PlannerTest, NothingToPlace) {
  const AllocationFields fields{.compute_device = "cuda:0", .virtual_vram_gb = 1};
  for (const PlannerMode mode : {PlannerMode::kExact, PlannerMode::kReference}) {
    EXPECT_EQ(PlanOf({}, fields, TwoDevices(), {.mode = mode}).block_count,
              (std::vector<int>{0, 0}));
    EXPECT_EQ(PlanOf(EqualBlocks(3, 0), fields, TwoDevices(), {.mode = mode}).block_count,
              (std::vector<int>{3, 0}));
  }
}

}  // namespace
}  // namespace distorch
