#include "lib/serving/preview_decoders.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/device/device_id.h"
#include "lib/pipeline/pixels.h"
#include "lib/serving/tensor_convert.h"
#include "tests/support/golden_case.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr double kTolerance = 5e-5;  // relative to the largest magnitude, as for every decoder

// The weights that the expected results were computed with: a hash of name and position.
std::string Values(const std::string& name, const std::vector<int64_t>& shape) {
  uint64_t salt = 0;
  for (size_t i = 0; i < name.size(); ++i) salt += static_cast<uint8_t>(name[i]) * (i + 1);
  uint64_t count = 1, fan_in = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    count *= static_cast<uint64_t>(shape[i]);
    if (i > 0) fan_in *= static_cast<uint64_t>(shape[i]);
  }
  const double gain = shape.size() > 1
                          ? 2 * std::sqrt(3.0) * std::sqrt(2.0 / static_cast<double>(fan_in)) * 0.8
                          : 0.1;
  std::string bytes(count * sizeof(float), '\0');
  for (uint64_t i = 0; i < count; ++i) {
    const auto hash = static_cast<uint32_t>(i * 2654435761u + salt * 40503u);
    const auto value = static_cast<float>((hash / 4294967296.0 - 0.5) * gain);
    std::memcpy(bytes.data() + i * sizeof(float), &value, sizeof(float));
  }
  return bytes;
}

class DecoderFile {
 public:
  explicit DecoderFile(int64_t channels) {
    Add("1", 64, channels);
    for (int block : {3, 4, 5, 8, 9, 10, 13, 14, 15, 18}) {
      for (int conv : {0, 2, 4}) Add(absl::StrCat(block, ".conv.", conv), 64, 64);
    }
    for (int conv : {7, 12, 17}) Add(absl::StrCat(conv), 64, 64, /*bias=*/false);
    Add("19", 3, 64);
  }

  void Write(const std::string& path) const { ASSERT_TRUE(WriteSafetensors(path, entries_).ok()); }
  void Drop() { entries_.pop_back(); }

 private:
  void Add(const std::string& name, int64_t out, int64_t in, bool bias = true) {
    AddTensor(name + ".weight", {out, in, 3, 3});
    if (bias) AddTensor(name + ".bias", {out});
  }
  void AddTensor(const std::string& name, const std::vector<int64_t>& shape) {
    entries_.push_back({name, DType::kF32, shape, Values(name, shape)});
  }

  std::vector<SafetensorsEntry> entries_;
};

struct WarningList : Observer {
  void Warning(std::string_view message) override { messages.emplace_back(message); }
  std::vector<std::string> messages;
};

class PreviewDecodersTest : public testing::Test {
 protected:
  at::Tensor Expected(const std::string& name) const {
    const absl::StatusOr<std::shared_ptr<const CheckpointFile>> file =
        CheckpointFile::Open(absl::StrCat(DISTORCH_GOLDEN_DIR, "/taesd/expected.safetensors"));
    EXPECT_TRUE(file.ok()) << file.status();
    const TensorInfo& info = *(*file)->index().Find(name);
    at::Tensor tensor = at::empty(info.shape, at::kFloat);
    std::memcpy(tensor.mutable_data_ptr(), (*file)->Data(info).data(), tensor.nbytes());
    return tensor;
  }
  void ExpectDecodes(const models::LatentFormat& format) {
    const nn::Taesd* decoder = decoders_.For(format);
    ASSERT_NE(decoder, nullptr) << testing::PrintToString(warnings_.messages);
    const std::string n = absl::StrCat(format.channels);
    const at::Tensor expected = Expected("decoded." + n);
    const at::Tensor decoded = decoder->Decode(Expected("latent." + n));
    ASSERT_EQ(decoded.sizes(), expected.sizes());
    EXPECT_LE((decoded - expected).abs().max().item<double>(),
              kTolerance * expected.abs().max().item<double>());
  }

  TempFolder folder_;
  WarningList warnings_;
  TransferMeter meter_{{DeviceId()}};
  PreviewDecoders decoders_{{folder_.path()}, &meter_, &warnings_};
};

TEST_F(PreviewDecodersTest, DecodesAsTheReferenceDoes) {
  DecoderFile(4).Write(folder_.File("taesd_decoder.safetensors"));
  DecoderFile(16).Write(folder_.File("taef1_decoder.safetensors"));
  ExpectDecodes(models::Sd1LatentFormat());
  ExpectDecodes(models::FluxLatentFormat());
  EXPECT_EQ(decoders_.For(models::Sd1LatentFormat()), decoders_.For(models::Sd1LatentFormat()));
  EXPECT_EQ(decoders_.For(models::SdxlLatentFormat()), nullptr);
  EXPECT_THAT(warnings_.messages, IsEmpty());
}

TEST_F(PreviewDecodersTest, FindsAFileThatCameLater) {
  EXPECT_EQ(decoders_.For(models::Sd3LatentFormat()), nullptr);
  DecoderFile(16).Write(folder_.File("taesd3_decoder_v1.safetensors"));
  ExpectDecodes(models::Sd3LatentFormat());
}

TEST_F(PreviewDecodersTest, WarnsOnceOfAFileThatIsNone) {
  folder_.Write("taesd_decoder.safetensors", "nothing of the kind");
  DecoderFile incomplete(4);
  incomplete.Drop();
  incomplete.Write(folder_.File("taesdxl_decoder.safetensors"));
  DecoderFile(4).Write(folder_.File("taesd3_decoder.safetensors"));  // SD3 has 16 channels
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(decoders_.For(models::Sd1LatentFormat()), nullptr);
    EXPECT_EQ(decoders_.For(models::SdxlLatentFormat()), nullptr);
    EXPECT_EQ(decoders_.For(models::Sd3LatentFormat()), nullptr);
  }
  EXPECT_THAT(warnings_.messages,
              ElementsAre(HasSubstr("taesd_decoder.safetensors"), HasSubstr("19.bias is missing"),
                          HasSubstr("1.weight has shape [64, 4, 3, 3], expected [64, 16, 3, 3]")));
}

TEST_F(PreviewDecodersTest, PreviewsAreOfTheImagesSizeButBounded) {
  DecoderFile(4).Write(folder_.File("taesd_decoder.safetensors"));
  const nn::Taesd* decoder = decoders_.For(models::Sd1LatentFormat());
  ASSERT_NE(decoder, nullptr);
  const Image8 small = pipeline::DecodedPreview(at::zeros({2, 4, 4, 6}), *decoder);
  EXPECT_EQ(small.width, 48);
  EXPECT_EQ(small.height, 32);
  // 640 x 16 pixels, halved.
  const Image8 wide = pipeline::DecodedPreview(at::zeros({1, 4, 2, 80}), *decoder);
  EXPECT_EQ(wide.width, 320);
  EXPECT_EQ(wide.height, 8);
}

}  // namespace
}  // namespace distorch
