// Infer on models that see a picture beside the latent: what it shows them equals what a client
// would build by hand for Sample. The checkpoints are golden ones with a wider first layer.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "lib/checkpoint/checkpoint_file.h"
#include "lib/pipeline/image_codec.h"
#include "lib/pipeline/png_codec.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_checkpoint.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

constexpr int kSide = 64, kUnit = 8, kLatentSide = kSide / kUnit;

struct EditModel {
  std::string name, golden;
  int extra_channels;  // beside the latent's
  int columns = 1;     // of the first layer for each channel
  float scale = 1;     // from the user's latents to what the model is shown
  float shift = 0;     // subtracted before
};

// A UNet's or a Flux network's first layer.
bool IsInput(const std::string& name) {
  return name == "model.diffusion_model.input_blocks.0.0.weight" ||
         name == "model.diffusion_model.img_in.weight";
}

// A row's values repeat in its new columns.
SafetensorsEntry Widened(SafetensorsEntry entry, int64_t columns) {
  const size_t rows = static_cast<size_t>(entry.shape[0]), row = entry.data.size() / rows;
  const size_t column = row / static_cast<size_t>(entry.shape[1]);
  std::string data;
  for (size_t i = 0; i < rows; ++i) {
    const std::string values = entry.data.substr(i * row, row);
    data += values;
    for (size_t left = static_cast<size_t>(columns) * column; left > 0;) {
      const size_t part = std::min(left, row);
      data += values.substr(0, part);
      left -= part;
    }
  }
  entry.data = std::move(data);
  entry.shape[1] += columns;
  return entry;
}

void WriteWidened(const EditModel& model, const std::string& path) {
  const auto golden = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, model.golden, DISTORCH_GOLDEN_CACHE);
  ASSERT_TRUE(golden.ok()) << golden.status();
  const auto file = CheckpointFile::Open(*golden);
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<SafetensorsEntry> entries;
  bool widened = false;
  for (const TensorInfo& tensor : (*file)->index().tensors()) {
    const std::span<const std::byte> bytes = (*file)->Data(tensor);
    SafetensorsEntry entry{tensor.name, tensor.dtype, tensor.shape,
                           std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())};
    if (IsInput(tensor.name)) {
      entry = Widened(std::move(entry), model.extra_channels * model.columns);
      widened = true;
    }
    entries.push_back(std::move(entry));
  }
  ASSERT_TRUE(widened);
  ASSERT_TRUE(WriteSafetensors(path, entries).ok());
}

Image8 Picture(int seed) {
  Image8 image{.width = kSide, .height = kSide, .channels = 3, .pixels = {}};
  for (int i = 0; i < kSide * kSide; ++i) {
    for (int c = 0; c < 3; ++c)
      image.pixels.push_back(static_cast<uint8_t>((i % kSide) * (c + seed) + i / kSide * 3));
  }
  return image;
}

// The right half is to be repainted.
bool Masked(int x) { return x >= kSide / 2; }

Image8 MaskPicture() {
  Image8 image{.width = kSide, .height = kSide, .channels = 3, .pixels = {}};
  for (int i = 0; i < kSide * kSide * 3; ++i)
    image.pixels.push_back(Masked(i / 3 % kSide) ? 255 : 0);
  return image;
}

HostTensor FromFloats(std::vector<int64_t> shape, const std::vector<float>& values) {
  HostTensor tensor;
  tensor.shape = std::move(shape);
  tensor.data.resize(values.size() * sizeof(float));
  std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  return tensor;
}

std::vector<float> ToFloats(const HostTensor& tensor) {
  std::vector<float> values(tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

HostTensor NoiseMask() {
  std::vector<float> values;
  for (int i = 0; i < kSide * kSide; ++i) values.push_back(Masked(i % kSide) ? 1.0f : 0.0f);
  return FromFloats({1, 1, kSide, kSide}, values);
}

class InferEditTest : public testing::TestWithParam<EditModel> {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(WriteWidened(GetParam(), folder_.File("edit.safetensors")));
    CoreOptions options;
    options.checkpoint_dirs = {folder_.path()};
    options.compute_dtype = "fp32";
    auto core = DaemonCore::Create(options, nullptr);
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    client_ = std::make_unique<CoreClient>(core_.get());
    LoadSpec load;
    load.ckpt_name = "edit.safetensors";
    const auto loaded = client_->Load(load);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    spec_.model = loaded->model;
    spec_.clip = loaded->clip;
    spec_.vae = loaded->vae;
    spec_.prompt = "make it night";
    spec_.width = spec_.height = kSide;
    spec_.options.steps = 2;
    spec_.options.cfg = 3;
    spec_.init_image = EncodePng(Picture(1), {}).value();
  }

  std::vector<uint8_t> Infer() {
    const auto result = client_->Infer(spec_);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? DecodeImage(result->png[0]).value().pixels : std::vector<uint8_t>();
  }

  HostTensor Encode(const std::vector<float>& pixels) {
    EncodeImageSpec encode;
    encode.vae = spec_.vae;
    encode.pixels = FromFloats({1, kSide, kSide, 3}, pixels);
    return client_->EncodeImage(encode).value();
  }
  static std::vector<float> Pixels() {
    std::vector<float> pixels;
    for (uint8_t value : Picture(1).pixels) pixels.push_back(static_cast<float>(value) / 255.0f);
    return pixels;
  }
  // As the model is shown it.
  static std::vector<float> Shown(const HostTensor& latent) {
    std::vector<float> values = ToFloats(latent);
    for (float& value : values) value = (value - GetParam().shift) * GetParam().scale;
    return values;
  }
  HostTensor Concat(const std::vector<float>& values) const {
    return FromFloats({1, GetParam().extra_channels, kLatentSide, kLatentSide}, values);
  }

  // The picture that Sample makes when it is shown `concat`.
  std::vector<uint8_t> Sample(const HostTensor& latent, const std::optional<HostTensor>& concat,
                              const std::optional<HostTensor>& noise_mask) {
    SampleSpec sample;
    sample.model = spec_.model;
    sample.options = spec_.options;
    sample.latent = latent;
    sample.noise_mask = noise_mask;
    for (const auto& [text, side] : {std::pair(spec_.prompt, &sample.positive),
                                     std::pair(spec_.negative_prompt, &sample.negative)}) {
      side->value = client_->EncodeText({spec_.clip, text}).value().conditioning;
      side->value->concat = concat;
    }
    DecodeLatentSpec decode;
    decode.vae = spec_.vae;
    decode.latent = client_->Sample(sample).value();
    decode.as_png = true;
    return DecodeImage(client_->Decode(decode).value().png[0]).value().pixels;
  }

  TempFolder folder_;
  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
  InferSpec spec_;
};

HostTensor ZerosLike(const HostTensor& tensor) {
  return FromFloats(tensor.shape, std::vector<float>(tensor.data.size() / sizeof(float)));
}

using EditTest = InferEditTest;

TEST_P(EditTest, ShowsTheModelThePicture) {
  const HostTensor latent = Encode(Pixels());
  const HostTensor concat = Concat(Shown(latent)), empty = ZerosLike(latent);
  const std::vector<uint8_t> inferred = Infer();
  EXPECT_EQ(inferred, Sample(empty, concat, {}));
  EXPECT_NE(inferred, Sample(empty, {}, {}));
  spec_.init_image = EncodePng(Picture(2), {}).value();
  EXPECT_NE(Infer(), inferred);
}

TEST_P(EditTest, KeepsSomeOfThePictureWhenAskedTo) {
  const HostTensor latent = Encode(Pixels());
  const HostTensor concat = Concat(Shown(latent));
  spec_.options.denoise = 0.5;
  EXPECT_EQ(Infer(), Sample(latent, concat, {}));
  spec_.options.denoise = 1;
  spec_.mask_image = EncodePng(MaskPicture(), {}).value();
  EXPECT_EQ(Infer(), Sample(latent, concat, NoiseMask()));
}

constexpr float kFluxScale = 0.3611f, kFluxShift = 0.1159f;

INSTANTIATE_TEST_SUITE_P(
    Models, EditTest,
    testing::Values(EditModel{"sd1_instruct", "sd1", 4}, EditModel{"sdxl_instruct", "sdxl", 4},
                    EditModel{"flux_control", "flux", 16, 4, kFluxScale, kFluxShift}),
    [](const auto& info) { return info.param.name; });

using FillTest = InferEditTest;

TEST_P(FillTest, ShowsTheModelTheMaskAndWhatItLeaves) {
  const HostTensor latent = Encode(Pixels());
  std::vector<float> hidden = Pixels();
  for (size_t i = 0; i < hidden.size(); ++i) {
    if (Masked(static_cast<int>(i) / 3 % kSide)) hidden[i] = 0.5f;
  }
  const std::vector<float> visible = Shown(Encode(hidden));
  std::vector<float> mask, concat;
  // Flux has a channel for each pixel of a latent pixel's square; the mask's edge lies between two.
  const bool flux = GetParam().golden == "flux";
  for (int i = 0; i < (flux ? kUnit * kUnit : 1) * kLatentSide * kLatentSide; ++i)
    mask.push_back(Masked(i % kLatentSide * kUnit) ? 1.0f : 0.0f);
  std::vector<const std::vector<float>*> parts = {&mask, &visible};
  if (flux) std::swap(parts[0], parts[1]);
  for (const std::vector<float>* part : parts)
    concat.insert(concat.end(), part->begin(), part->end());

  spec_.mask_image = EncodePng(MaskPicture(), {}).value();
  const std::vector<uint8_t> inferred = Infer();
  EXPECT_EQ(inferred, Sample(latent, Concat(concat), NoiseMask()));
  EXPECT_NE(inferred, Sample(latent, {}, NoiseMask()));
}

INSTANTIATE_TEST_SUITE_P(Models, FillTest,
                         testing::Values(EditModel{"sdxl_inpaint", "sdxl", 5, 1, 0.13025f},
                                         EditModel{"sd1_inpaint", "sd1", 5, 1, 0.18215f},
                                         EditModel{"flux_fill", "flux", 80, 4, kFluxScale,
                                                   kFluxShift}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace distorch
