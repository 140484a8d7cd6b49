// The one golden sample that float32 does not give twice. With zero terminal SNR the first step
// falls from a noise level of 4,519 to 7; Heun's average of two slopes is then rounded in steps
// that the rest of the run makes 3e-4 of the result each, and the network's last bits decide which
// way. The reference's own runs differ by up to 1e-3 from each other (threads, attention kernels).
// With the network in float64 only the sampler rounds, and that the reference and we do alike.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "lib/distorch/placement.h"
#include "lib/models/family.h"
#include "lib/pipeline/sample_latent.h"
#include "tests/support/golden_case.h"
#include "tests/support/golden_checkpoint.h"

namespace distorch {
namespace {

constexpr double kSampleTolerance = 2e-4;

at::Tensor ToTensor(const HostTensor& host) {
  at::Tensor tensor = at::empty(host.shape, at::kFloat);
  std::memcpy(tensor.mutable_data_ptr(), host.data.data(), host.data.size());
  return tensor;
}

HostTensor FromTensor(const at::Tensor& tensor) {
  HostTensor host;
  host.shape = tensor.sizes().vec();
  host.data.assign(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
  return host;
}

absl::Status PlaceInFloat64(const CheckpointFile& file, nn::Component* component,
                            TransferMeter* meter) {
  std::vector<SlotTarget> targets;
  for (const auto& slot : component->store().slots()) {
    targets.push_back(
        {slot.get(), at::kCPU, std::vector<DType>(slot->params().size(), DType::kF64)});
  }
  component->set_compute({at::kCPU, at::kDouble});
  return PlaceWeights(file, targets, meter, CancelToken(), [](int64_t) {});
}

TEST(HeunGoldenTest, WithZeroTerminalSnrEqualsTheReferenceWhereTheNetworkDoesNotRound) {
  const std::string golden_dir = DISTORCH_GOLDEN_DIR;
  const auto path = GoldenCheckpoint(golden_dir, "sdxl_v", DISTORCH_GOLDEN_CACHE);
  ASSERT_TRUE(path.ok()) << path.status();
  const GoldenCase golden(golden_dir + "/sdxl_v");
  const auto file = CheckpointFile::Open(*path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto skeleton = models::BuildSkeleton(**file);
  ASSERT_TRUE(skeleton.ok()) << skeleton.status();
  TransferMeter meter({});
  const absl::Status placed = PlaceInFloat64(**file, skeleton->unet.get(), &meter);
  ASSERT_TRUE(placed.ok()) << placed;

  const auto& cases = golden.cases()["sample"];
  const auto item = std::find_if(cases.begin(), cases.end(),
                                 [](const auto& c) { return c["name"] == "heun.normal"; });
  ASSERT_NE(item, cases.end());
  const auto conditioning = [&](const nlohmann::json& prompt) {
    const std::string n = std::to_string(prompt.get<int>());
    text::Conditioning result;
    result.cross_attention = ToTensor(golden.Expected("cond." + n));
    result.pooled = ToTensor(golden.Expected("pooled." + n));
    return result;
  };
  pipeline::SampleInputs inputs;
  inputs.positive = conditioning((*item)["pos"]);
  inputs.negative = conditioning((*item)["neg"]);
  inputs.latent = at::zeros((*item)["shape"].get<std::vector<int64_t>>(), at::kFloat);
  inputs.cfg = (*item)["cfg"];
  inputs.args.seed = (*item)["seed"];
  inputs.args.steps = (*item)["steps"];
  inputs.args.sampler_name = (*item)["sampler"];
  inputs.args.scheduler = (*item)["scheduler"];
  const auto latent = pipeline::SampleLatent(*skeleton->unet, inputs, CancelToken(), nullptr);
  ASSERT_TRUE(latent.ok()) << latent.status();
  EXPECT_LE(RelativeError(FromTensor(*latent), golden.Expected("sample.heun.normal")),
            kSampleTolerance);
}

}  // namespace
}  // namespace distorch
