// PlanCheckpoint of files of real size, which are sparse here.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <memory>
#include <string>

#include "lib/serving/daemon_core.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

struct RealCheckpoint {
  std::string header, family;
};

class PlanRealCheckpointTest : public ::testing::TestWithParam<RealCheckpoint> {};

// What this process has read of files so far.
int64_t BytesRead() {
  std::ifstream counts("/proc/self/io");
  std::string name;
  int64_t bytes = 0;
  counts >> name >> bytes;
  EXPECT_EQ(name, "rchar:");
  return bytes;
}

int64_t PlannedBytes(const ComponentPlacement& component) {
  int64_t bytes = 0;
  for (const DeviceBytes& device : component.devices) bytes += device.planned_bytes;
  return bytes;
}

TEST_P(PlanRealCheckpointTest, SplitsEveryComponent) {
  const auto entries = RealHeader(DISTORCH_GOLDEN_DIR, GetParam().header);
  ASSERT_TRUE(entries.ok()) << entries.status();
  const TempFolder folder;
  ASSERT_TRUE(WriteSafetensors(folder.path() + "/real.safetensors", *entries).ok());
  CoreOptions options;
  options.checkpoint_dirs = {folder.path()};
  options.simulate_devices = "cuda:0=24GiB,cuda:1=24GiB,cpu=64GiB";
  auto core = DaemonCore::Create(options, nullptr);
  ASSERT_TRUE(core.ok()) << core.status();

  LoadSpec spec;
  spec.ckpt_name = "real.safetensors";
  spec.unet_expert_mode_allocations = "cuda:0,60%;cuda:1,40%";
  spec.clip_compute_device = "cuda:1";
  spec.clip_virtual_vram_gb = 0;
  const int64_t before = BytesRead();
  const auto plan = (*core)->PlanCheckpoint(spec);
  constexpr int64_t kBesides = 1 << 20;  // what the system says of its memory, and of reading
  EXPECT_LT(BytesRead() - before,
            static_cast<int64_t>(SafetensorsHeaderBytes(*entries).size()) + kBesides);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->family, GetParam().family);
  EXPECT_TRUE(plan->fits) << plan->reason;

  for (const ComponentPlacement& component : plan->placement) {
    std::map<std::string, int64_t> by_device;
    for (const BlockPlacement& block : component.blocks) by_device[block.device] += block.bytes;
    for (const DeviceBytes& device : component.devices)
      EXPECT_EQ(device.planned_bytes, by_device[device.device]) << component.component;
  }
  const ComponentPlacement& unet = plan->placement.front();
  ASSERT_EQ(unet.component, "unet");
  ASSERT_EQ(unet.devices.size(), 2u);
  const auto total = static_cast<double>(PlannedBytes(unet));
  EXPECT_NEAR(static_cast<double>(unet.devices[0].planned_bytes) / total, 0.6, 0.03);
}

INSTANTIATE_TEST_SUITE_P(RealHeaders, PlanRealCheckpointTest,
                         ::testing::Values(RealCheckpoint{"sd15.f16", "sd1"},
                                           RealCheckpoint{"sd21.f16", "sd2"},
                                           RealCheckpoint{"sdxl.f16", "sdxl"},
                                           RealCheckpoint{"sd3_medium_incl_clips_t5.f16", "sd3"},
                                           RealCheckpoint{"flux_dev.fp8", "flux"}),
                         [](const auto& info) { return info.param.family; });

}  // namespace
}  // namespace distorch
