// From a real-size header to a plan: what PlanCheckpoint does once the header is read.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "lib/base/status_macros.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/distorch/planner.h"
#include "lib/models/family.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

constexpr const char* kHeaders[] = {"sd15.f16", "sd21.f16", "sdxl.f16",
                                    "sd3_medium_incl_clips_t5.f16", "flux_dev.fp8"};

absl::StatusOr<std::shared_ptr<const CheckpointFile>> OpenSparse(const TempFolder& folder,
                                                                 const std::string& header) {
  ASSIGN_OR_RETURN(const auto entries, RealHeader(DISTORCH_GOLDEN_DIR, header));
  const std::string path = folder.File(header);
  RETURN_IF_ERROR(WriteSafetensors(path, entries));
  return CheckpointFile::Open(path);
}

absl::Status DetectAndPlan(const CheckpointFile& file) {
  const std::vector<DeviceMemory> devices = {{*ParseDeviceId("cuda:0"), int64_t{8} << 30},
                                             {*ParseDeviceId("cpu"), int64_t{64} << 30}};
  AllocationFields fields;
  fields.field_prefix = "unet";
  fields.compute_device = "cuda:0";
  fields.virtual_vram_gb = 4;
  fields.donor_device = "cpu";
  ASSIGN_OR_RETURN(const models::Skeleton skeleton, models::BuildSkeleton(file));
  ASSIGN_OR_RETURN(const Allocation allocation, ParseAllocation(fields, devices));
  for (const nn::Component* component : {static_cast<const nn::Component*>(skeleton.unet.get()),
                                         static_cast<const nn::Component*>(skeleton.clip.get())}) {
    if (component == nullptr) continue;
    benchmark::DoNotOptimize(MakePlan(component->store().Blocks(), allocation, devices, {}));
  }
  return absl::OkStatus();
}

void BM_DetectAndPlan(benchmark::State& state) {
  const std::string header = kHeaders[state.range(0)];
  state.SetLabel(header);
  const TempFolder folder;
  const auto file = OpenSparse(folder, header);
  if (!file.ok()) return state.SkipWithError(std::string(file.status().message()).c_str());
  for (auto _ : state) {
    const absl::Status status = DetectAndPlan(**file);
    if (!status.ok()) return state.SkipWithError(std::string(status.message()).c_str());
  }
}
BENCHMARK(BM_DetectAndPlan)->DenseRange(0, 4)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace distorch
