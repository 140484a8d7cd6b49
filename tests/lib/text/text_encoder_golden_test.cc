// Every family's text encoders against the reference's states, with the weights of the golden
// checkpoints in float32 on the CPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/status_macros.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/distorch/placement.h"
#include "lib/models/family.h"
#include "lib/text/text_encoder.h"
#include "lib/text/textual_inversion.h"
#include "tests/support/golden_case.h"
#include "tests/support/golden_checkpoint.h"

namespace distorch {
namespace {

constexpr double kTolerance = 1e-5;
const std::string kGolden = DISTORCH_GOLDEN_DIR;

struct LoadedEncoder {
  std::shared_ptr<const CheckpointFile> file;
  models::Detection detection;
  std::unique_ptr<text::TextEncoder> encoder;
};

absl::StatusOr<LoadedEncoder> Load(const std::string& family, TransferMeter* meter) {
  ASSIGN_OR_RETURN(const std::string path,
                   GoldenCheckpoint(kGolden, family, DISTORCH_GOLDEN_CACHE));
  LoadedEncoder loaded;
  ASSIGN_OR_RETURN(loaded.file, CheckpointFile::Open(path));
  ASSIGN_OR_RETURN(loaded.detection, models::DetectFamily(*loaded.file));
  ASSIGN_OR_RETURN(loaded.encoder, loaded.detection.family->build_clip(loaded.detection.tensors));
  RETURN_IF_ERROR(loaded.encoder->store().status());
  std::vector<SlotTarget> targets;
  for (const auto& slot : loaded.encoder->store().slots()) {
    const std::vector<DType> dtypes(slot->params().size(), DType::kF32);
    targets.push_back({slot.get(), at::kCPU, dtypes});
  }
  RETURN_IF_ERROR(PlaceWeights(*loaded.file, targets, meter, CancelToken(), [](int64_t) {}));
  loaded.encoder->set_compute({});
  return loaded;
}

HostTensor ToHost(const at::Tensor& tensor) {
  const at::Tensor t = tensor.to(at::kFloat).contiguous();
  HostTensor host{DType::kF32, t.sizes().vec(), std::string(t.nbytes(), '\0')};
  std::memcpy(host.data.data(), t.const_data_ptr(), t.nbytes());
  return host;
}

class TextEncoderGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(TextEncoderGoldenTest, EqualsTheReference) {
  TransferMeter meter({*ParseDeviceId("cpu")});
  const auto loaded = Load(GetParam(), &meter);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const GoldenCase golden(kGolden + "/" + GetParam());
  const auto& prompts = golden.cases()["prompts"];
  ASSERT_GE(prompts.size(), 5u);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::string n = std::to_string(i), prompt = prompts[i]["text"];
    SCOPED_TRACE(prompt);
    const auto actual = loaded->encoder->Encode(prompt, text::kFamilysLayer, nullptr);
    ASSERT_TRUE(actual.ok()) << actual.status();
    EXPECT_LE(RelativeError(ToHost(actual->cross_attention), golden.Expected("cond." + n)),
              kTolerance);
    if (!golden.Has("pooled." + n)) continue;
    EXPECT_LE(RelativeError(ToHost(actual->pooled), golden.Expected("pooled." + n)), kTolerance);
  }
  if (!golden.Has("cond.clip_skip2")) return;
  const auto skipped = loaded->encoder->Encode(prompts[0]["text"].get<std::string>(), -2, nullptr);
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  EXPECT_LE(RelativeError(ToHost(skipped->cross_attention), golden.Expected("cond.clip_skip2")),
            kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Families, TextEncoderGoldenTest,
                         testing::Values("sd1", "sd2", "sd2_v", "sdxl", "sdxl_v", "sdxl_refiner",
                                         "sd3", "sd35", "flux", "flux_schnell"),
                         [](const auto& info) { return std::string(info.param); });

class OneFile : public text::EmbeddingSource {
 public:
  explicit OneFile(const std::string& path) : file_(*CheckpointFile::Open(path)) {}
  absl::StatusOr<at::Tensor> Load(std::string_view name, std::string_view transformer) override {
    if (name != "mystyle") return absl::NotFoundError("there is only mystyle");
    return text::ReadTextualInversion(*file_, transformer);
  }
  void Ignored(std::string_view name, const absl::Status& why) override {
    ADD_FAILURE() << name << ": " << why;
  }

 private:
  std::shared_ptr<const CheckpointFile> file_;
};

TEST(TextualInversionGoldenTest, WeightedEmbeddingsEqualTheReference) {
  const std::string folder = kGolden + "/sd1/extras";
  TransferMeter meter({*ParseDeviceId("cpu")});
  const auto loaded = Load("sd1", &meter);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const GoldenCase golden(folder);
  OneFile embeddings(folder + "/mystyle.safetensors");
  int compared = 0;
  for (const auto& item : golden.cases()) {
    if (!item.contains("prompt")) continue;
    const auto actual = loaded->encoder->Encode(item["prompt"].get<std::string>(),
                                                text::kFamilysLayer, &embeddings);
    ASSERT_TRUE(actual.ok()) << actual.status();
    EXPECT_LE(RelativeError(ToHost(actual->cross_attention), golden.Expected(item["name"])),
              kTolerance);
    ++compared;
  }
  EXPECT_EQ(compared, 1);
}

}  // namespace
}  // namespace distorch
