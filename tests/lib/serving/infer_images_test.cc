// Pictures in and out of Infer, EncodeImage and DecodeLatent: formats, bad files, previews, and
// what happens when the VAE's memory runs out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "lib/pipeline/image_codec.h"
#include "lib/pipeline/png_codec.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"

namespace distorch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

class WarningList : public Observer {
 public:
  void Warning(std::string_view message) override {
    absl::MutexLock lock(&mutex_);
    messages_.emplace_back(message);
  }
  std::vector<std::string> Take() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(messages_, {});
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::string> messages_ ABSL_GUARDED_BY(mutex_);
};

WarningList& Warnings() {
  static auto* const warnings = new WarningList();
  return *warnings;
}

// cuda:1 has room for the demo's VAE and a tile, not for a long image.
DaemonCore& Core() {
  static DaemonCore* const core = [] {
    CoreOptions options;
    options.checkpoint_dirs = {DISTORCH_DEMO_DIR};
    options.simulate_devices = "cuda:0=1GiB,cuda:1=72MiB,cuda:2=24MiB";
    options.compute_dtype = "fp32";
    auto created = DaemonCore::Create(options, &Warnings());
    EXPECT_TRUE(created.ok()) << created.status();
    return created->release();
  }();
  return *core;
}

Image8 Flat(int width, int height, int channels, uint8_t value) {
  Image8 image{.width = width, .height = height, .channels = channels, .pixels = {}};
  image.pixels.assign(static_cast<size_t>(width) * height * channels, value);
  return image;
}

class InferImagesTest : public testing::Test {
 protected:
  void SetUp() override { Warnings().Take(); }
  void TearDown() override {
    EXPECT_TRUE(client_.UnloadAll().ok());
    for (const DeviceInfo& device : Core().ListDevices()) {
      if (device.name == "cpu") continue;
      EXPECT_EQ(device.free_bytes, device.total_bytes) << device.name;
    }
  }

  InferSpec Load(const std::string& vae_device = "cuda:0") {
    LoadSpec load;
    load.ckpt_name = "shapes-sd1.safetensors";
    load.unet_compute_device = "cuda:0";
    load.vae_device = vae_device;
    const auto loaded = client_.Load(load);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    InferSpec spec;
    spec.model = loaded->model;
    spec.clip = loaded->clip;
    spec.vae = loaded->vae;
    spec.prompt = "a red circle";
    spec.width = spec.height = 64;
    spec.options.steps = 2;
    return spec;
  }
  void ExpectError(const InferSpec& spec, const std::string& text) {
    const absl::Status status = client_.Infer(spec).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }

  CoreClient client_{&Core()};
};

TEST_F(InferImagesTest, WritesEveryFormatOfOnePicture) {
  InferSpec spec = Load();
  const auto png = client_.Infer(spec);
  ASSERT_TRUE(png.ok()) << png.status();
  const Image8 exact = DecodeImage(png->png[0]).value();
  for (const auto& [name, begin] :
       {std::pair{"jpeg", "\xFF\xD8\xFF"}, {"jpg", "\xFF\xD8\xFF"}, {"webp", "RIFF"}}) {
    spec.image_format = name;
    const auto result = client_.Infer(spec);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_THAT(result->png[0], StartsWith(begin));
    EXPECT_THAT(result->png[0], HasSubstr(std::string("\0r\0e\0d\0 \0c\0i\0r\0c\0l\0e", 20)));
    EXPECT_THAT(result->png[0], HasSubstr("prompt:{"));
    const Image8 near = DecodeImage(result->png[0]).value();
    ASSERT_EQ(near.pixels.size(), exact.pixels.size());
    double sum = 0;
    for (size_t i = 0; i < near.pixels.size(); ++i)
      sum += std::abs(near.pixels[i] - exact.pixels[i]);
    EXPECT_LT(sum / static_cast<double>(near.pixels.size()), 6) << name;
  }
  spec.image_format = "bmp";
  ExpectError(spec, "image_format: \"bmp\" is not supported; allowed: png, jpeg, webp");
}

TEST_F(InferImagesTest, StartsFromEveryFormat) {
  InferSpec spec = Load();
  spec.options.denoise = 0.5;
  for (ImageFormat format : {ImageFormat::kPng, ImageFormat::kJpeg, ImageFormat::kWebp}) {
    spec.init_image = EncodeImage(Flat(100, 70, 3, 128), format, {}).value();
    const auto result = client_.Infer(spec);
    ASSERT_TRUE(result.ok()) << result.status();
    EncodeImageSpec encode;
    encode.vae = spec.vae;
    encode.encoded = spec.init_image;
    const auto latent = client_.EncodeImage(encode);
    ASSERT_TRUE(latent.ok()) << latent.status();
    EXPECT_THAT(latent->shape, ElementsAre(1, 4, 8, 12));  // cropped to whole latent pixels
  }
}

TEST_F(InferImagesTest, NamesTheFieldOfAFileThatIsCorrupt) {
  InferSpec spec = Load();
  const Image8 picture = Flat(64, 64, 3, 100);
  for (ImageFormat format : {ImageFormat::kPng, ImageFormat::kJpeg, ImageFormat::kWebp}) {
    const std::string whole = EncodeImage(picture, format, {}).value();
    spec.mask_image = "";
    spec.init_image = whole.substr(0, whole.size() / 2);
    ExpectError(spec, "init_image: not a readable");
    spec.init_image = whole;
    spec.mask_image = whole.substr(0, whole.size() / 2);
    ExpectError(spec, "mask_image: not a readable");
  }
  spec.init_image = "no picture";
  ExpectError(spec, "init_image: not an image; allowed: PNG, JPEG, WebP files");
  spec.init_image = "";
  ExpectError(spec, "mask_image: needs an init_image");
}

TEST_F(InferImagesTest, ABlackMaskKeepsThePicture) {
  InferSpec spec = Load();
  spec.init_image = EncodePng(Flat(64, 64, 3, 128), {}).value();
  EncodeImageSpec encode;
  encode.vae = spec.vae;
  encode.encoded = spec.init_image;
  DecodeLatentSpec decode;
  decode.vae = spec.vae;
  decode.as_png = true;
  decode.latent = client_.EncodeImage(encode).value();
  const Image8 kept = DecodeImage(client_.Decode(decode).value().png[0]).value();
  const auto difference = [&] {
    const auto result = client_.Infer(spec);
    EXPECT_TRUE(result.ok()) << result.status();
    const Image8 image = DecodeImage(result.value().png[0]).value();
    int largest = 0;
    for (size_t i = 0; i < image.pixels.size(); ++i)
      largest = std::max(largest, std::abs(image.pixels[i] - kept.pixels[i]));
    return largest;
  };
  EXPECT_GT(difference(), 60);
  spec.mask_image = EncodePng(Flat(8, 8, 3, 0), {}).value();
  EXPECT_LE(difference(), 1);
}

TEST_F(InferImagesTest, ChecksTheTileSize) {
  InferSpec spec = Load();
  for (int bad : {-8, 8, 63, 65, 8200}) {
    spec.tile_size = bad;
    ExpectError(spec, absl::StrCat("tile_size: ", bad));
    DecodeLatentSpec decode;
    decode.vae = spec.vae;
    decode.tile_size = bad;
    EXPECT_EQ(client_.Decode(decode).status().code(), absl::StatusCode::kInvalidArgument);
    EncodeImageSpec encode;
    encode.vae = spec.vae;
    encode.tile_size = bad;
    EXPECT_EQ(client_.EncodeImage(encode).status().code(), absl::StatusCode::kInvalidArgument);
  }
  spec.tile_size = 64;
  spec.width = 128;
  EXPECT_TRUE(client_.Infer(spec).ok());
}

HostTensor Zeros(std::vector<int64_t> shape) {
  HostTensor tensor;
  size_t count = 1;
  for (int64_t dim : shape) count *= static_cast<size_t>(dim);
  tensor.shape = std::move(shape);
  tensor.data.assign(count * sizeof(float), '\0');
  return tensor;
}

TEST_F(InferImagesTest, GoesOnByTilesWhenMemoryRunsOut) {
  const InferSpec spec = Load("cuda:1");
  DecodeLatentSpec decode;
  decode.vae = spec.vae;
  decode.latent = Zeros({1, 4, 8, 240});
  const auto decoded = client_.Decode(decode);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->images.shape, ElementsAre(1, 64, 1920, 3));
  EXPECT_THAT(Warnings().Take(), ElementsAre(HasSubstr("no memory to decode an image at once")));

  EncodeImageSpec encode;
  encode.vae = spec.vae;
  encode.pixels = decoded->images;
  const auto encoded = client_.EncodeImage(encode);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_THAT(encoded->shape, ElementsAre(1, 4, 8, 240));
  EXPECT_THAT(Warnings().Take(), ElementsAre(HasSubstr("no memory to encode an image at once")));

  decode.tile_size = 256;  // asked for, so nothing runs out
  EXPECT_TRUE(client_.Decode(decode).ok());
  EXPECT_THAT(Warnings().Take(), IsEmpty());
}

TEST_F(InferImagesTest, SaysSoWhenNotEvenATileFits) {
  const InferSpec spec = Load("cuda:2");
  DecodeLatentSpec decode;
  decode.vae = spec.vae;
  decode.latent = Zeros({1, 4, 64, 64});
  EXPECT_EQ(client_.Decode(decode).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(InferImagesTest, PreviewsAreSmallPngs) {
  InferSpec spec = Load();
  spec.options.steps = 3;
  spec.preview_every = 1;
  std::vector<std::string> previews;
  InferCallbacks callbacks;
  callbacks.progress = [&](const StepProgress& progress) {
    if (!progress.preview_png.empty()) previews.push_back(progress.preview_png);
  };
  ASSERT_TRUE(client_.Infer(spec, std::make_shared<CancelToken>(), callbacks).ok());
  ASSERT_EQ(previews.size(), 2u);  // the last step brings the picture itself
  EXPECT_EQ(DecodePng(previews[0]).value().image.width, 8);
}

}  // namespace
}  // namespace distorch
