// Choosing a split of SDXL's 1,050 blocks over devices that hold 40 % of it each, and predicting
// one step. Target: below 50 ms and well under a millisecond.
#include <cstdint>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "lib/distorch/auto_allocation.h"
#include "tests/lib/distorch/placement_golden.h"

namespace distorch {
namespace {

struct Setup {
  std::vector<Block> blocks;
  StepModel model;
  AutoOptions options;
};

// Ten blocks a unit, as many operations a byte as half of the blocks have.
Setup Sdxl(int64_t accelerators, Execution execution) {
  constexpr size_t kBlocksAUnit = 10;
  Setup setup;
  setup.blocks =
      ReadPlacementGolden(DISTORCH_GOLDEN_DIR "/placement.json").models.at("sdxl.unet.f16").blocks;
  int64_t total = 0;
  for (const Block& block : setup.blocks) {
    setup.model.bytes.push_back(block.bytes);
    setup.model.work.blocks.push_back({.flops = 2000.0 * static_cast<double>(block.bytes)});
    total += block.bytes;
  }
  for (size_t first = 0; first + kBlocksAUnit <= setup.blocks.size(); first += kBlocksAUnit) {
    const int before = static_cast<int>(setup.model.work.units.size()) - 1;
    setup.model.work.units.push_back({{first, first + kBlocksAUnit}, {{before, 10'000'000}}});
  }
  for (int i = 0; i < accelerators; ++i) setup.model.devices.push_back({"cuda", i});
  setup.model.devices.emplace_back();
  for (const DeviceId& from : setup.model.devices) {
    setup.model.speeds.push_back({1e14});
    setup.options.usable_bytes.push_back(from.is_cpu() ? 2 * total : total * 2 / 5);
    for (const DeviceId& to : setup.model.devices) {
      if (from != to) setup.model.links.Set(from, to, {25e9, 10e-6});
    }
  }
  setup.model.staging_bytes = 512 << 20;
  setup.options.execution = execution;
  return setup;
}

void BM_AllocateSdxl(benchmark::State& state) {
  const Setup setup = Sdxl(state.range(0), static_cast<Execution>(state.range(1)));
  const StepPredictor predictor(setup.model);
  for (auto _ : state)
    benchmark::DoNotOptimize(AllocateAutomatically(predictor, setup.blocks, setup.options));
  state.counters["blocks"] = static_cast<double>(setup.blocks.size());
}
BENCHMARK(BM_AllocateSdxl)
    ->ArgNames({"accelerators", "execution"})
    ->ArgsProduct({{1, 2, 3, 5}, {0, 2}})
    ->Unit(benchmark::kMillisecond);

void BM_PredictSdxl(benchmark::State& state) {
  const Setup setup = Sdxl(2, Execution::kCompute);
  const StepPredictor predictor(setup.model);
  const AutoPlan plan = AllocateAutomatically(predictor, setup.blocks, setup.options);
  for (auto _ : state)
    benchmark::DoNotOptimize(predictor.Seconds(plan.assignment, plan.units.devices));
}
BENCHMARK(BM_PredictSdxl)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace distorch
