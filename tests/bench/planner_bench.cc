// Planning SDXL's 1,050 blocks, and parsing the allocation before it. Target: well under a
// millisecond.
#include <string>

#include "benchmark/benchmark.h"
#include "lib/distorch/allocation.h"
#include "lib/distorch/planner.h"
#include "tests/lib/distorch/placement_golden.h"

namespace distorch {
namespace {

struct Setup {
  GoldenModel model;
  std::vector<DeviceMemory> devices;
  AllocationFields fields;
};

Setup Sdxl() {
  Setup setup{
      .model =
          ReadPlacementGolden(DISTORCH_GOLDEN_DIR "/placement.json").models.at("sdxl.unet.f16")};
  setup.devices = {{{"cuda", 0}, int64_t{8} << 30},
                   {{"cuda", 1}, int64_t{12} << 30},
                   {{"cuda", 2}, int64_t{6} << 30},
                   {{"cpu", 0}, int64_t{32} << 30}};
  setup.fields = {.compute_device = "cuda:0",
                  .expert_mode_allocations = "cuda:0,500mb;cuda:1,3.0g;cpu,5gb*"};
  return setup;
}

void BM_PlanSdxl(benchmark::State& state) {
  const Setup setup = Sdxl();
  const Allocation allocation = ParseAllocation(setup.fields, setup.devices).value();
  const PlannerOptions options{.mode = static_cast<PlannerMode>(state.range(0)),
                               .is_text_encoder = state.range(1) != 0};
  for (auto _ : state) {
    benchmark::DoNotOptimize(MakePlan(setup.model.blocks, allocation, setup.devices, options));
  }
  state.counters["blocks"] = static_cast<double>(setup.model.blocks.size());
}
BENCHMARK(BM_PlanSdxl)
    ->ArgNames({"reference", "text_encoder"})
    ->ArgsProduct({{0, 1}, {0, 1}})
    ->Unit(benchmark::kMicrosecond);

void BM_ParseAndPlanSdxl(benchmark::State& state) {
  const Setup setup = Sdxl();
  for (auto _ : state) {
    const Allocation allocation = ParseAllocation(setup.fields, setup.devices).value();
    benchmark::DoNotOptimize(MakePlan(setup.model.blocks, allocation, setup.devices, {}));
  }
}
BENCHMARK(BM_ParseAndPlanSdxl)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace distorch
