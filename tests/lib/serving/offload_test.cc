// Weights elsewhere than where they compute, through the core: what stays on disk takes no memory,
// links carry what they should, a file that shrinks is an error, and nothing changes a bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using testing::HasSubstr;

class OffloadTest : public testing::Test {
 protected:
  OffloadTest() {
    std::filesystem::copy_file(absl::StrCat(DISTORCH_DEMO_DIR, "/shapes-sd1.safetensors"),
                               folder_.File(kName));
  }
  ~OffloadTest() override {
    if (core_ == nullptr) return;
    EXPECT_TRUE(client_->UnloadAll().ok());
    for (const auto& [name, device] : Devices()) {
      EXPECT_EQ(device.weights_bytes + device.reserved_bytes + device.staging_bytes, 0) << name;
      if (name != "cpu") {
        EXPECT_EQ(device.free_bytes, device.total_bytes) << name;
      }
    }
  }

  void Start(const std::string& links, int staging_mb) {
    CoreOptions options;
    options.checkpoint_dirs = {folder_.path()};
    options.simulate_devices = "cuda:0=1GiB,cuda:1=1GiB";
    options.compute_dtype = "fp32";
    options.links = links;
    options.staging_mb = staging_mb;
    auto core = DaemonCore::Create(options, nullptr);
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    client_ = std::make_unique<CoreClient>(core_.get());
  }
  absl::StatusOr<LoadResult> Load(const std::string& unet, const std::string& clip = "") {
    LoadSpec spec;
    spec.ckpt_name = kName;
    spec.unet_compute_device = spec.clip_compute_device = spec.vae_device = "cuda:0";
    spec.unet_expert_mode_allocations = unet;
    spec.clip_expert_mode_allocations = clip;
    spec.clip_virtual_vram_gb = 0;
    return client_->Load(spec);
  }
  absl::StatusOr<HostTensor> Sample(const LoadResult& loaded) {
    const auto text = client_->EncodeText({loaded.clip, "a red circle"});
    if (!text.ok()) return text.status();
    SampleSpec spec;
    spec.model = loaded.model;
    spec.positive.id = spec.negative.id = text->conditioning_id;
    spec.latent.shape = {1, 4, 8, 8};
    spec.latent.data.assign(size_t{4} * 8 * 8 * 4, '\0');
    spec.options.seed = 5;
    spec.options.steps = 4;
    return client_->Sample(spec);
  }
  std::map<std::string, DeviceInfo> Devices() {
    std::map<std::string, DeviceInfo> devices;
    for (DeviceInfo& device : core_->ListDevices()) devices[device.name] = std::move(device);
    return devices;
  }
  std::map<std::string, LinkInfo> Links() {
    std::map<std::string, LinkInfo> links;
    for (LinkInfo& link : core_->Links()) links[link.from + ">" + link.to] = std::move(link);
    return links;
  }

  static constexpr char kName[] = "sd1.safetensors";
  TempFolder folder_;
  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
};

TEST_F(OffloadTest, NoPlaceAndNoStagingChangesABit) {
  std::string resident;
  for (const auto& [links, staging_mb] :
       {std::pair("", 0), std::pair("", 64), std::pair("cuda:0-cpu=10GB/s;disk-cpu=1GB/s", 64)}) {
    Start(links, staging_mb);
    for (const char* split :
         {"cuda:0,*", "cpu,*", "cuda:0,20%;cuda:1,20%;cpu,30%;disk,30%", "disk,*"}) {
      SCOPED_TRACE(split);
      const auto loaded = Load(split, split);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      const auto latent = Sample(*loaded);
      ASSERT_TRUE(latent.ok()) << latent.status();
      if (resident.empty()) resident = latent->data;
      EXPECT_EQ(latent->data, resident);
    }
    ASSERT_TRUE(client_->UnloadAll().ok());
    client_.reset();
    core_.reset();
  }
}

TEST_F(OffloadTest, WhatStaysOnDiskTakesNoMemory) {
  Start("", 0);
  const auto loaded = Load("disk,*", "disk,*");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  for (const ComponentPlacement& component : loaded->placement) {
    if (component.component == "vae") continue;
    const auto disk = std::find_if(component.devices.begin(), component.devices.end(),
                                   [](const DeviceBytes& d) { return d.device == "disk"; });
    ASSERT_NE(disk, component.devices.end());
    EXPECT_GT(disk->measured_bytes, 100 << 10);
    EXPECT_EQ(disk->measured_bytes, disk->planned_bytes);
    EXPECT_EQ(component.compute_device, "cuda:0");
  }
  int64_t on_disk = 0, in_memory = 0, all = 0;
  for (const ModelInfo& model : core_->ListModels()) {
    for (const auto& [device, bytes] : model.unshared_bytes) {
      (device == "disk" ? on_disk : in_memory) += bytes;
      all += bytes;
    }
  }
  EXPECT_GT(on_disk, all / 3);
  const auto devices = Devices();
  EXPECT_EQ(devices.at("cuda:0").weights_bytes + devices.at("cpu").weights_bytes, in_memory);
  EXPECT_EQ(devices.at("cuda:0").total_bytes - devices.at("cuda:0").free_bytes, in_memory)
      << "allocated";
  EXPECT_FALSE(devices.contains("disk"));
  ASSERT_TRUE(Sample(*loaded).ok());
  EXPECT_GT(Links().at("disk>cpu").bytes, on_disk);
  EXPECT_GT(Links().at("cpu>cuda:0").bytes, on_disk);

  const auto receipt = client_->UnloadAll();
  ASSERT_TRUE(receipt.ok());
  EXPECT_FALSE(receipt->freed_bytes.contains("disk"));
}

TEST_F(OffloadTest, TransfersHideOnSimulatedLinksAndTakeNoWallTime) {
  // At this speed the first pass alone would take a minute.
  Start("cuda:0-cpu=1MB/s,1ms", 512);
  const auto loaded = Load("cpu,*");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto ring = Devices().at("cuda:0");
  EXPECT_GT(ring.staging_bytes, 1 << 20);
  EXPECT_EQ(ring.total_bytes - ring.free_bytes, ring.weights_bytes + ring.staging_bytes);
  ASSERT_TRUE(Sample(*loaded).ok());
  const LinkInfo link = Links().at("cpu>cuda:0");
  EXPECT_TRUE(link.simulated);
  EXPECT_EQ(link.bytes_per_second, 1e6);
  EXPECT_NEAR(link.latency_seconds, 1e-3, 1e-9);
  EXPECT_GT(link.exposed_seconds, 1);
  EXPECT_GE(link.exposed_seconds + link.overlapped_seconds, static_cast<double>(link.bytes) * 1e-6);
}

TEST_F(OffloadTest, AFileThatShrinksFailsTheRequestAndNothingElse) {
  for (const int staging_mb : {0, 64}) {
    Start("", staging_mb);
    const auto loaded = Load("disk,*");
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    ASSERT_TRUE(Sample(*loaded).ok());
    const auto path = folder_.File(kName);
    const auto size = std::filesystem::file_size(path);
    std::filesystem::copy_file(path, folder_.File("copy"));
    std::filesystem::resize_file(path, size / 3);
    const auto latent = Sample(*loaded);
    EXPECT_FALSE(latent.ok());
    EXPECT_THAT(std::string(latent.status().message()), HasSubstr("ends before byte"));
    ASSERT_TRUE(client_->UnloadAll().ok());
    std::filesystem::rename(folder_.File("copy"), path);
    const auto again = Load("disk,*");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(Sample(*again).ok());
    ASSERT_TRUE(client_->UnloadAll().ok());
    client_.reset();
    core_.reset();
  }
}

TEST_F(OffloadTest, DiskDonatesAndDoesNothingElse) {
  Start("", 64);
  LoadSpec spec;
  spec.ckpt_name = kName;
  spec.unet_donor_device = "disk";
  spec.unet_virtual_vram_gb = 1;
  const auto plan = core_->PlanCheckpoint(spec);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->placement[0].devices.back().device, "disk");
  EXPECT_TRUE(plan->fits);
  EXPECT_EQ(std::count_if(plan->placement[0].blocks.begin(), plan->placement[0].blocks.end(),
                          [](const BlockPlacement& block) { return block.device == "disk"; }),
            plan->placement[0].devices.back().blocks);

  spec.unet_compute_device = "disk";
  EXPECT_THAT(std::string(core_->PlanCheckpoint(spec).status().message()),
              HasSubstr("unet_compute_device: disk cannot compute"));
  spec.unet_compute_device = "cuda:0";
  spec.vae_device = "disk";
  EXPECT_THAT(std::string(core_->PlanCheckpoint(spec).status().message()), HasSubstr("vae_device"));
  spec.vae_device = "cuda:0";
  spec.unet_expert_mode_allocations = "cuda:0,0.5;disk,0.5";
  EXPECT_THAT(std::string(core_->PlanCheckpoint(spec).status().message()),
              HasSubstr("disk has none"));
}

TEST_F(OffloadTest, LinkFlagIsChecked) {
  CoreOptions options;
  options.links = "cuda:0-cpu=1GB/s";
  EXPECT_THAT(std::string(DaemonCore::Create(options, nullptr).status().message()),
              HasSubstr("--link: is for --simulate_devices"));
  options.simulate_devices = "cuda:0=1GiB";
  options.links = "cuda:3-cpu=1GB/s";
  EXPECT_THAT(std::string(DaemonCore::Create(options, nullptr).status().message()),
              HasSubstr("--link: 'cuda:3-cpu=1GB/s': unknown device"));
  options.links = "";
  options.staging_mb = -1;
  EXPECT_THAT(std::string(DaemonCore::Create(options, nullptr).status().message()),
              HasSubstr("--staging_mb"));
}

TEST_F(OffloadTest, AnEqualLoadReadsAnewWhatWasWrittenOver) {
  Start("", 64);
  const auto loaded = Load("disk,*", "disk,*");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto skipped = core_->SetClipSkip(loaded->clip, -2);
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  const auto before = Sample(*loaded);
  ASSERT_TRUE(before.ok()) << before.status();
  const auto path = folder_.File(kName);
  const auto written = std::filesystem::last_write_time(path);
  std::filesystem::copy_file(absl::StrCat(DISTORCH_DEMO_DIR, "/shapes-sd1.safetensors"), path,
                             std::filesystem::copy_options::overwrite_existing);
  // Whatever the resolution of the file system's clock.
  std::filesystem::last_write_time(path, written + std::chrono::seconds(1));
  EXPECT_EQ(Sample(*loaded).status().code(), absl::StatusCode::kDataLoss);
  const auto again = Load("disk,*", "disk,*");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->model, loaded->model);
  const auto after = Sample(*again);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->data, before->data);
  EXPECT_TRUE(client_->EncodeText({*skipped, "a red circle"}).ok());
}

}  // namespace
}  // namespace distorch
