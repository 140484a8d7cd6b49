// The chosen split against the node's modes and against one piece after another, over a grid of
// simulated machines and models.
#include "lib/distorch/auto_allocation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace distorch {
namespace {

constexpr int64_t kMb = 1'000'000;
const DeviceId kCuda0{"cuda", 0}, kCuda1{"cuda", 1}, kCuda2{"cuda", 2}, kCpu;

struct Machine {
  std::string name;
  std::vector<DeviceId> devices;
  std::vector<double> flops;     // parallel to devices
  std::vector<double> to_first;  // bytes a second to and from devices[0]
};
const Machine kMachines[] = {
    {"laptop", {kCuda0, kCpu}, {1e13, 5e11}, {0, 12e9}},
    {"desktop", {kCuda0, kCuda1, kCpu}, {8e13, 2e13, 1e12}, {0, 1e9, 25e9}},
    {"linked", {kCuda0, kCuda1, kCpu}, {1e14, 1e14, 1e12}, {0, 200e9, 25e9}},
    {"slow_link", {kCuda0, kCuda1, kCpu}, {1e14, 5e13, 1e12}, {0, 3e9, 6e9}},
    {"server", {kCuda0, kCuda1, kCuda2, kCpu}, {3e14, 3e14, 3e14, 3e12}, {0, 50e9, 400e9, 55e9}},
};

// How much of the model the devices can take, compute first and cpu last, as shares of it.
const std::vector<double> kRoom[] = {{0.9, 0.5, 2}, {0.6, 0.3, 2}, {0.3, 0.3, 2},
                                     {0.3, 0.9, 2}, {0.5, 0, 0.6}, {0.05, 0.2, 1.2}};

struct Network {
  std::string name;
  size_t units, blocks_each;
  bool even;  // all blocks alike
};
const Network kNetworks[] = {
    {"transformer", 57, 4, true}, {"unet", 40, 8, false}, {"many", 105, 10, false}};

// A sanitizer makes a plan take thirty times as long; every way is gone for one intensity, too.
#ifdef DISTORCH_SANITIZED
constexpr double kFlopsPerByte[] = {3000};
#else
constexpr double kFlopsPerByte[] = {300, 3000, 30000};
#endif

class Case {
 public:
  Case(const Machine& machine, const std::vector<double>& room, const Network& network,
       double flops_per_byte) {
    std::mt19937 random(7);
    model_.devices = machine.devices;
    for (size_t unit = 0; unit < network.units; ++unit) {
      const size_t first = blocks_.size();
      for (size_t i = 0; i < network.blocks_each; ++i) {
        const auto bytes =
            static_cast<int64_t>(network.even ? 20 * kMb : 1 + random() % (40 * kMb));
        const double intensity = network.even ? 1 : 0.05 + static_cast<double>(random() % 100) / 25;
        blocks_.push_back({"b" + std::to_string(blocks_.size()), bytes, i % 4 != 3});
        model_.bytes.push_back(bytes);
        model_.work.blocks.push_back(
            {.flops = intensity * flops_per_byte * static_cast<double>(bytes)});
      }
      model_.work.units.push_back(
          {{first, blocks_.size()}, {{static_cast<int>(unit) - 1, 20 * kMb}}});
      if (!network.even && unit >= 2 * network.units / 3) {
        model_.work.units.back().inputs.push_back(
            {static_cast<int>(network.units - unit), 10 * kMb});
      }
    }
    model_.work.output_bytes = 20 * kMb;
    for (double flops : machine.flops) model_.speeds.push_back({flops});
    for (size_t d = 1; d < machine.devices.size(); ++d) {
      Link(machine.devices[d], kCuda0, machine.to_first[d]);
      if (!machine.devices[d].is_cpu()) Link(machine.devices[d], kCpu, machine.to_first.back());
    }
    model_.staging_bytes = 400 * kMb;
    const double total =
        static_cast<double>(std::accumulate(model_.bytes.begin(), model_.bytes.end(), int64_t{0}));
    for (size_t d = 0; d < machine.devices.size(); ++d) {
      const double share = machine.devices[d].is_cpu() ? room.back() : room[std::min<size_t>(d, 1)];
      options_.usable_bytes.push_back(static_cast<int64_t>(share * total));
    }
  }

  AutoPlan Allocate(Execution execution) {
    options_.execution = execution;
    return AllocateAutomatically(StepPredictor(model_), blocks_, options_);
  }

  bool Fits(const std::vector<int>& assignment) const {
    std::vector<int64_t> held(model_.devices.size());
    for (size_t i = 0; i < assignment.size(); ++i)
      held[static_cast<size_t>(assignment[i])] += model_.bytes[i];
    for (size_t d = 0; d < held.size(); ++d) {
      if (held[d] > options_.usable_bytes[d]) return false;
    }
    return true;
  }

  // The best that a user of the node can ask for: virtual VRAM in steps of a quarter of a GiB with
  // the donors in any order, bytes, and shares by free memory.
  double BestOfNode(Execution execution) const {
    std::vector<DeviceMemory> memory;
    for (size_t d = 0; d < model_.devices.size(); ++d)
      memory.push_back({model_.devices[d], 4 * options_.usable_bytes[d] + 1});
    double best = std::numeric_limits<double>::infinity();
    Allocation allocation;
    allocation.compute_device = kCuda0;
    const auto consider = [&] {
      const Plan plan = MakePlan(blocks_, allocation, memory, {});
      best = std::min(best, SecondsOf(plan.assignment, execution));
    };
    std::vector<size_t> donors(model_.devices.size() - 1);
    std::iota(donors.begin(), donors.end(), size_t{1});
    do {
      allocation.mode = AllocationMode::kVirtualVram;
      allocation.entries.clear();
      for (size_t donor : donors) allocation.entries.push_back({model_.devices[donor]});
      for (allocation.virtual_vram_bytes = 0; allocation.virtual_vram_bytes <= (16LL << 30);
           allocation.virtual_vram_bytes += 1 << 28) {
        consider();
      }
      allocation.mode = AllocationMode::kBytes;
      allocation.entries = {Entry(0)};
      for (size_t donor : donors) allocation.entries.push_back(Entry(donor));
      consider();
    } while (std::next_permutation(donors.begin(), donors.end()));
    allocation.mode = AllocationMode::kRatio;
    consider();
    return best;
  }

  // What stable-diffusion.cpp's --auto-fit does.
  double InPieces(Execution execution) const {
    std::vector<int> assignment;
    std::vector<int64_t> left = options_.usable_bytes;
    size_t device = 0;
    for (int64_t bytes : model_.bytes) {
      while (device < left.size() && left[device] < bytes) ++device;
      if (device == left.size()) return std::numeric_limits<double>::infinity();
      left[device] -= bytes;
      assignment.push_back(static_cast<int>(device));
    }
    return SecondsOf(assignment, execution);
  }

 private:
  void Link(const DeviceId& a, const DeviceId& b, double rate) {
    model_.links.Set(a, b, {rate, 10e-6});
    model_.links.Set(b, a, {rate, 10e-6});
  }
  AllocationEntry Entry(size_t device) const {
    return {model_.devices[device],
            static_cast<double>(std::max<int64_t>(1, options_.usable_bytes[device]))};
  }
  double SecondsOf(const std::vector<int>& assignment, Execution execution) const {
    if (!Fits(assignment)) return std::numeric_limits<double>::infinity();
    return StepPredictor(model_).PlaceUnits(execution, assignment).step_seconds;
  }

  StepModel model_;
  std::vector<Block> blocks_;
  AutoOptions options_;
};

class AutoAllocationGridTest : public testing::TestWithParam<Machine> {};

TEST_P(AutoAllocationGridTest, IsNeverSlowerThanWhatIsDoneToday) {
  constexpr double kRounding = 1 + 1e-9;
  for (const Network& network : kNetworks) {
    for (const std::vector<double>& room : kRoom) {
      for (const double flops_per_byte : kFlopsPerByte) {
        for (const Execution execution : {Execution::kCompute, Execution::kAuto}) {
          SCOPED_TRACE(network.name + " room " + testing::PrintToString(room) + " flops/byte " +
                       std::to_string(flops_per_byte) + " " +
                       std::string(ExecutionName(execution)));
          Case c(GetParam(), room, network, flops_per_byte);
          const AutoPlan plan = c.Allocate(execution);
          const double node = c.BestOfNode(execution), pieces = c.InPieces(execution);
          EXPECT_EQ(plan.fits, c.Fits(plan.assignment));
          if (!plan.fits) {
            EXPECT_EQ(std::min(node, pieces), std::numeric_limits<double>::infinity());
            continue;
          }
          EXPECT_LE(plan.units.step_seconds, node * kRounding) << plan.way;
          EXPECT_LE(plan.units.step_seconds, pieces * kRounding) << plan.way;
          const AutoPlan again = c.Allocate(execution);
          EXPECT_EQ(again.assignment, plan.assignment);
        }
      }
    }
  }
}

TEST_P(AutoAllocationGridTest, WhatFitsOnComputeStaysThere) {
  for (const Network& network : kNetworks) {
    Case c(GetParam(), {1.0, 5.0, 5.0}, network, 3000);
    const AutoPlan plan = c.Allocate(Execution::kAuto);
    EXPECT_TRUE(plan.fits);
    EXPECT_EQ(plan.way, "all on compute");
    EXPECT_EQ(plan.assignment, std::vector<int>(plan.assignment.size(), 0));
  }
}

INSTANTIATE_TEST_SUITE_P(Machines, AutoAllocationGridTest, testing::ValuesIn(kMachines),
                         [](const auto& info) { return info.param.name; });

TEST(DescribeSplitTest, IsAnExpertString) {
  StepModel model;
  model.devices = {kCuda0, kCuda1, kCpu};
  model.bytes = {int64_t{3} << 30, int64_t{1} << 29, int64_t{1} << 29};
  EXPECT_EQ(DescribeSplit(std::vector<int>{0, 2, 2}, model), "cuda:0,3.00gb;cpu,1.00gb");
}

}  // namespace
}  // namespace distorch
