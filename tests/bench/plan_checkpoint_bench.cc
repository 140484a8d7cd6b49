// PlanCheckpoint of files of real size, from the open file to the plan: SD1.5 (2 GiB) to Flux (16
// GiB), which are sparse. Target: under 0.1 s each.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "lib/serving/daemon_core.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

void BM_PlanCheckpoint(benchmark::State& state, const std::string& header) {
  const auto entries = RealHeader(DISTORCH_GOLDEN_DIR, header);
  const TempFolder folder;
  if (!entries.ok() || !WriteSafetensors(folder.path() + "/real.safetensors", *entries).ok())
    return state.SkipWithError("the sparse file could not be written");
  CoreOptions options;
  options.checkpoint_dirs = {folder.path()};
  options.simulate_devices = "cuda:0=24GiB,cuda:1=24GiB,cpu=64GiB";
  const auto core = DaemonCore::Create(options, nullptr);
  if (!core.ok()) return state.SkipWithError(std::string(core.status().message()).c_str());
  LoadSpec spec;
  spec.ckpt_name = "real.safetensors";
  for (auto _ : state) {
    const auto plan = (*core)->PlanCheckpoint(spec);
    if (!plan.ok()) return state.SkipWithError(std::string(plan.status().message()).c_str());
  }
}
BENCHMARK_CAPTURE(BM_PlanCheckpoint, sd15, "sd15.f16")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_PlanCheckpoint, sd21, "sd21.f16")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_PlanCheckpoint, sdxl, "sdxl.f16")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_PlanCheckpoint, sd3, "sd3_medium_incl_clips_t5.f16")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_PlanCheckpoint, flux, "flux_dev.fp8")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace distorch
