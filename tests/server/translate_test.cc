#include "server/translate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "server/translate_tensor.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Tensor MakeTensor(v1::DataType dtype, const std::vector<int64_t>& shape, std::string data) {
  v1::Tensor tensor;
  tensor.set_dtype(dtype);
  tensor.mutable_shape()->Assign(shape.begin(), shape.end());
  tensor.set_data(std::move(data));
  return tensor;
}

v1::Tensor Floats(const std::vector<int64_t>& shape, const std::vector<float>& values) {
  std::string data(values.size() * sizeof(float), '\0');
  std::memcpy(data.data(), values.data(), data.size());
  return MakeTensor(v1::FLOAT32, shape, std::move(data));
}

template <typename T>
std::string MessageOf(const absl::StatusOr<T>& result) {
  EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
  return std::string(result.status().message());
}

TEST(TranslateTensorTest, RoundTripsEveryType) {
  const std::vector<std::pair<v1::DataType, int>> types = {
      {v1::FLOAT32, 4}, {v1::FLOAT16, 2}, {v1::BFLOAT16, 2}, {v1::UINT8, 1}, {v1::INT64, 8}};
  for (const auto& [type, size] : types) {
    std::string data(static_cast<std::size_t>(size) * 6, '\x01');
    const v1::Tensor sent = MakeTensor(type, {2, 3}, data);
    absl::StatusOr<HostTensor> tensor = ToAnyTensor(sent, "t");
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_THAT(tensor->shape, ElementsAre(2, 3));
    v1::Tensor back;
    ToProto(*std::move(tensor), &back);
    EXPECT_EQ(back.SerializeAsString(), sent.SerializeAsString());
  }
}

TEST(TranslateTensorTest, SaysWhatDoesNotAgree) {
  EXPECT_EQ(MessageOf(ToFloatTensor(MakeTensor(v1::FLOAT32, {1, 4, 8, 8}, std::string(12, '\0')),
                                    "latent")),
            "latent: data has 12 bytes, but shape [1, 4, 8, 8] of FLOAT32 needs 1024");
  EXPECT_EQ(MessageOf(ToFloatTensor(v1::Tensor(), "x")), "x: is required: a tensor");
  EXPECT_EQ(MessageOf(ToFloatTensor(MakeTensor(v1::DATA_TYPE_UNSPECIFIED, {1}, "1234"), "x")),
            "x: dtype DATA_TYPE_UNSPECIFIED is not one of FLOAT32, FLOAT16, BFLOAT16");
  EXPECT_THAT(MessageOf(ToFloatTensor(MakeTensor(v1::INT64, {1}, std::string(8, '\0')), "x")),
              HasSubstr("dtype INT64"));
  EXPECT_THAT(MessageOf(ToAnyTensor(MakeTensor(static_cast<v1::DataType>(77), {1}, "1234"), "x")),
              HasSubstr("dtype 77"));
  EXPECT_THAT(MessageOf(ToFloatTensor(MakeTensor(v1::FLOAT32, {}, ""), "x")),
              HasSubstr("1 to 8 dimensions"));
  EXPECT_THAT(
      MessageOf(ToFloatTensor(MakeTensor(v1::FLOAT32, {1, 1, 1, 1, 1, 1, 1, 1, 1}, "1234"), "x")),
      HasSubstr("1 to 8 dimensions"));
  EXPECT_THAT(MessageOf(ToFloatTensor(MakeTensor(v1::FLOAT32, {2, 0}, ""), "x")),
              HasSubstr("at least 1"));
  EXPECT_THAT(MessageOf(ToFloatTensor(MakeTensor(v1::FLOAT32, {-1, -1}, "1234"), "x")),
              HasSubstr("at least 1"));
}

TEST(TranslateTensorTest, ProductsThatOverflowAreNotSmallTensors) {
  const int64_t half = int64_t{1} << 32;
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{half, half},
        {half, half, half, half, half, half, half, half},
        {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max()},
        {int64_t{1} << 62}}) {
    EXPECT_THAT(MessageOf(ToFloatTensor(MakeTensor(v1::FLOAT32, shape, ""), "x")),
                HasSubstr("too large"));
  }
}

TEST(TranslateTensorTest, NumbersMustBeFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(MessageOf(ToFloatTensor(Floats({3}, {1, 2, nan}), "noise")),
            "noise: element 2 is not a finite number");
  EXPECT_EQ(MessageOf(ToFloatTensor(Floats({1, 3}, {1, -inf, nan}), "x")),
            "x: element 1 is not a finite number");
  const std::string f16_inf = {'\x00', '\x3c', '\x00', '\x7c'},
                    bf16_nan = {'\x80', '\x3f', '\xc0', '\x7f'};
  EXPECT_THAT(MessageOf(ToFloatTensor(MakeTensor(v1::FLOAT16, {2}, f16_inf), "x")),
              HasSubstr("element 1"));
  EXPECT_THAT(MessageOf(ToFloatTensor(MakeTensor(v1::BFLOAT16, {2}, bf16_nan), "x")),
              HasSubstr("element 1"));
  EXPECT_TRUE(ToFloatTensor(Floats({2}, {std::numeric_limits<float>::max(),
                                         std::numeric_limits<float>::denorm_min()}),
                            "x")
                  .ok());
}

TEST(TranslateLoadTest, AbsentStaysAbsentAndPresentIsKept) {
  v1::LoadCheckpointRequest request;
  request.set_ckpt_name("a.safetensors");
  request.set_unet_donor_device("");
  absl::StatusOr<LoadSpec> spec = ToLoadSpec(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_FALSE(spec->unet_compute_device.has_value() || spec->unet_virtual_vram_gb.has_value() ||
               spec->unet_donor_device.has_value() || spec->eject_models.has_value() ||
               spec->high_precision_loras.has_value() || spec->lease_seconds.has_value());
  request.set_unet_compute_device("cuda:0");
  request.set_unet_virtual_vram_gb(0);
  request.set_clip_virtual_vram_gb(128);
  request.set_unet_donor_device("cuda:1,cpu");
  request.set_eject_models(false);
  request.set_weight_dtype("fp8_e4m3fn");
  request.set_lease_seconds(60);
  request.set_clip_expert_mode_allocations("cpu,*");
  spec = ToLoadSpec(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->unet_compute_device, "cuda:0");
  EXPECT_EQ(spec->unet_virtual_vram_gb, 0);
  EXPECT_EQ(spec->clip_virtual_vram_gb, 128);
  EXPECT_EQ(spec->unet_donor_device, "cuda:1,cpu");
  EXPECT_EQ(spec->eject_models, false);
  EXPECT_EQ(spec->weight_dtype, "fp8_e4m3fn");
  EXPECT_EQ(spec->lease_seconds, 60);
  EXPECT_EQ(spec->clip_expert_mode_allocations, "cpu,*");
}

TEST(TranslateLoadTest, EachFieldIsNamedByItsError) {
  const auto error_after = [](const std::function<void(v1::LoadCheckpointRequest*)>& change) {
    v1::LoadCheckpointRequest request;
    request.set_ckpt_name("a.safetensors");
    change(&request);
    return MessageOf(ToLoadSpec(request));
  };
  EXPECT_THAT(error_after([](auto* r) { r->clear_ckpt_name(); }),
              HasSubstr("ckpt_name: is required"));
  EXPECT_EQ(error_after([](auto* r) { r->set_unet_virtual_vram_gb(-0.5); }),
            "unet_virtual_vram_gb: -0.5 is not a number from 0 to 128");
  EXPECT_THAT(error_after([](auto* r) { r->set_clip_virtual_vram_gb(128.5); }),
              HasSubstr("clip_virtual_vram_gb: 128.5"));
  EXPECT_THAT(error_after([](auto* r) {
                r->set_clip_virtual_vram_gb(std::numeric_limits<double>::quiet_NaN());
              }),
              HasSubstr("clip_virtual_vram_gb: nan"));
  EXPECT_THAT(error_after([](auto* r) { r->set_weight_dtype("int4"); }),
              HasSubstr("weight_dtype: 'int4' is not one of default"));
  EXPECT_THAT(error_after([](auto* r) { r->set_lease_seconds(-1); }),
              HasSubstr("lease_seconds: -1"));
}

TEST(TranslateUnloadTest, HandlesOrAll) {
  v1::UnloadRequest request;
  EXPECT_THAT(MessageOf(ToUnloadSpec(request)), HasSubstr("handles: is required unless all"));
  request.add_handles("model-1");
  request.set_force(true);
  absl::StatusOr<UnloadSpec> spec = ToUnloadSpec(request);
  ASSERT_TRUE(spec.ok());
  EXPECT_THAT(spec->handles, ElementsAre("model-1"));
  EXPECT_TRUE(spec->force);
  request.set_all(true);
  EXPECT_THAT(MessageOf(ToUnloadSpec(request)), HasSubstr("must be empty when all"));
}

v1::InferRequest MinimalInfer() {
  v1::InferRequest request;
  request.set_model("m");
  request.set_clip("c");
  request.set_vae("v");
  return request;
}

TEST(TranslateInferTest, UnsetFieldsAreTheNodesDefaults) {
  absl::StatusOr<InferSpec> spec = ToInferSpec(MinimalInfer());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->width, 512);
  EXPECT_EQ(spec->height, 512);
  EXPECT_EQ(spec->batch_size, 1);
  EXPECT_EQ(spec->image_format, "png");
  const SamplingOptions& options = spec->options;
  EXPECT_EQ(options.seed, 0u);
  EXPECT_EQ(options.steps, 20);
  EXPECT_EQ(options.cfg, 8.0);
  EXPECT_EQ(options.sampler_name, "euler");
  EXPECT_EQ(options.scheduler, "normal");
  EXPECT_EQ(options.denoise, 1.0);
  EXPECT_EQ(options.parallel, "");
  EXPECT_FALSE(options.start_step.has_value() || options.add_noise.has_value() ||
               options.guidance.has_value());
}

TEST(TranslateInferTest, SetFieldsAreKept) {
  v1::InferRequest request = MinimalInfer();
  request.set_prompt("a cat");
  request.set_width(64);
  request.set_height(8192);
  request.set_batch_size(64);
  request.set_preview_every(2);
  v1::SamplingOptions* options = request.mutable_options();
  options->set_seed(std::numeric_limits<uint64_t>::max());
  options->set_steps(4);
  options->set_cfg(1.0);
  options->set_sampler_name("dpmpp_2m");
  options->set_scheduler("karras");
  options->set_denoise(0.25);
  options->set_start_step(0);
  options->set_end_step(3);
  options->set_add_noise(false);
  options->set_parallel("cuda:1");
  absl::StatusOr<InferSpec> spec = ToInferSpec(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->prompt, "a cat");
  EXPECT_EQ(spec->width, 64);
  EXPECT_EQ(spec->height, 8192);
  EXPECT_EQ(spec->options.seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(spec->options.cfg, 1.0);
  EXPECT_EQ(spec->options.sampler_name, "dpmpp_2m");
  EXPECT_EQ(spec->options.denoise, 0.25);
  EXPECT_EQ(spec->options.start_step, 0);
  EXPECT_EQ(spec->options.add_noise, false);
  EXPECT_EQ(spec->options.parallel, "cuda:1");
}

TEST(TranslateInferTest, EachFieldIsNamedByItsError) {
  const auto error_after = [](const std::function<void(v1::InferRequest*)>& change) {
    v1::InferRequest request = MinimalInfer();
    change(&request);
    return MessageOf(ToInferSpec(request));
  };
  EXPECT_THAT(error_after([](auto* r) { r->clear_clip(); }), HasSubstr("clip: is required"));
  EXPECT_EQ(error_after([](auto* r) { r->set_width(500); }), "width: 500 is not a multiple of 8");
  EXPECT_EQ(error_after([](auto* r) { r->set_height(8); }),
            "height: 8 is not from 16 to 8192, the server's --max_image_side");
  EXPECT_THAT(error_after([](auto* r) { r->set_width(8200); }), HasSubstr("width: 8200"));
  EXPECT_THAT(error_after([](auto* r) { r->set_height(-512); }), HasSubstr("height: -512"));
  EXPECT_THAT(error_after([](auto* r) { r->set_batch_size(65); }), HasSubstr("batch_size: 65"));
  EXPECT_THAT(error_after([](auto* r) { r->set_batch_size(-1); }), HasSubstr("batch_size: -1"));
  EXPECT_THAT(error_after([](auto* r) { r->set_preview_every(-1); }),
              HasSubstr("preview_every: -1"));
  EXPECT_THAT(error_after([](auto* r) { r->set_image_format("bmp"); }),
              HasSubstr("image_format: 'bmp'"));
  EXPECT_THAT(error_after([](auto* r) { r->set_tile_size(63); }), HasSubstr("tile_size: 63"));
  EXPECT_THAT(error_after([](auto* r) { r->set_init_image(""); }),
              HasSubstr("init_image: is empty"));
  EXPECT_THAT(error_after([](auto* r) { r->set_mask_image(""); }),
              HasSubstr("mask_image: is empty"));
  EXPECT_THAT(error_after([](auto* r) { r->set_mask_image("x"); }),
              HasSubstr("mask_image: needs init_image"));
  EXPECT_THAT(error_after([](auto* r) { r->mutable_options()->set_steps(-3); }),
              HasSubstr("options.steps: -3"));
  EXPECT_THAT(error_after([](auto* r) { r->mutable_options()->set_steps(10001); }),
              HasSubstr("options.steps"));
  EXPECT_THAT(error_after([](auto* r) { r->mutable_options()->set_cfg(-1); }),
              HasSubstr("options.cfg: -1"));
  EXPECT_THAT(error_after([](auto* r) {
                r->mutable_options()->set_cfg(std::numeric_limits<double>::infinity());
              }),
              HasSubstr("options.cfg: inf"));
  EXPECT_THAT(error_after([](auto* r) { r->mutable_options()->set_denoise(1.5); }),
              HasSubstr("options.denoise: 1.5"));
  EXPECT_THAT(error_after([](auto* r) { r->mutable_options()->set_start_step(-1); }),
              HasSubstr("options.start_step"));
}

TEST(TranslateSampleTest, ConditioningByValueOrById) {
  v1::SampleRequest request;
  request.set_model("m");
  *request.mutable_latent() = Floats({1, 1, 1, 2}, {0, 1});
  EXPECT_THAT(MessageOf(ToSampleSpec(request)), HasSubstr("positive: is required"));
  request.set_positive_id("cond-1");
  EXPECT_THAT(MessageOf(ToSampleSpec(request)), HasSubstr("negative: is required"));
  request.set_negative_id("cond-2");
  absl::StatusOr<SampleSpec> spec = ToSampleSpec(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->positive.id, "cond-1");
  EXPECT_FALSE(spec->negative.value.has_value());

  *request.mutable_negative()->mutable_cross_attention() = Floats({1, 1, 3}, {1, 2, 3});
  request.mutable_negative()->mutable_size()->set_width(1024);
  request.mutable_negative()->set_guidance(3.5);
  *request.mutable_negative()->mutable_attention_mask() =
      MakeTensor(v1::INT64, {1}, std::string(8, '\0'));
  request.add_sigmas(14.5);
  request.add_sigmas(0);
  spec = ToSampleSpec(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_TRUE(spec->negative.value.has_value());
  EXPECT_THAT(spec->negative.value->cross_attention.shape, ElementsAre(1, 1, 3));
  EXPECT_EQ(spec->negative.value->size->width, 1024);
  EXPECT_EQ(spec->negative.value->guidance, 3.5);
  EXPECT_EQ(spec->negative.value->attention_mask->dtype, DType::kI64);
  EXPECT_FALSE(spec->negative.value->pooled.has_value());
  EXPECT_THAT(spec->sigmas, ElementsAre(14.5, 0));

  request.mutable_negative()->mutable_pooled();
  EXPECT_THAT(MessageOf(ToSampleSpec(request)), HasSubstr("negative.pooled: is required"));
  request.mutable_negative()->clear_pooled();
  request.set_sigmas(1, -1);
  EXPECT_THAT(MessageOf(ToSampleSpec(request)), HasSubstr("sigmas: -1"));
}

TEST(TranslateDenoiseTest, OneSigmaOrOneForEachItem) {
  v1::DenoiseRequest request;
  request.set_model("m");
  *request.mutable_x() = Floats({3, 1}, {1, 2, 3});
  *request.mutable_conditioning()->mutable_cross_attention() = Floats({1, 1, 1}, {1});
  EXPECT_THAT(MessageOf(ToDenoiseSpec(request)), HasSubstr("sigma: has 0 numbers"));
  request.add_sigma(1);
  EXPECT_TRUE(ToDenoiseSpec(request).ok());
  request.add_sigma(1);
  EXPECT_THAT(MessageOf(ToDenoiseSpec(request)), HasSubstr("sigma: has 2 numbers"));
  request.add_sigma(1);
  EXPECT_TRUE(ToDenoiseSpec(request).ok());
}

TEST(TranslateImageTest, DecodeAndEncode) {
  v1::DecodeLatentRequest decode;
  decode.set_vae("v");
  *decode.mutable_latent() = Floats({1, 1, 1, 1}, {1});
  EXPECT_TRUE(ToDecodeLatentSpec(decode).ok());
  decode.set_tile_size(32);
  EXPECT_THAT(MessageOf(ToDecodeLatentSpec(decode)), HasSubstr("tile_size: 32"));
  decode.set_tile_size(100);
  EXPECT_THAT(MessageOf(ToDecodeLatentSpec(decode)), HasSubstr("multiple of 8"));

  v1::EncodeImageRequest encode;
  encode.set_vae("v");
  EXPECT_THAT(MessageOf(ToEncodeImageSpec(encode)), HasSubstr("image: is required"));
  encode.set_encoded("PNG");
  EXPECT_EQ(ToEncodeImageSpec(encode)->encoded, "PNG");
  *encode.mutable_pixels() = Floats({1, 1, 1, 3}, {0, 0.5, 1});
  EXPECT_TRUE(ToEncodeImageSpec(encode)->pixels.has_value());
}

TEST(TranslateClipSkipTest, LayersCountFromTheEnd) {
  v1::SetClipSkipRequest request;
  request.set_clip("c");
  EXPECT_FALSE(CheckClipSkip(request).ok());
  request.set_stop_at_layer(-2);
  EXPECT_TRUE(CheckClipSkip(request).ok());
}

TEST(TranslateResponseTest, StringsFromDiskAreUtf8) {
  v1::ListCheckpointsResponse response;
  ToProto(std::vector<CheckpointInfo>{{"a\xff.ckpt", 7, "torch", "", "bad header"}}, &response);
  EXPECT_EQ(response.checkpoints(0).ckpt_name(), "a\uFFFD.ckpt");
  EXPECT_EQ(response.checkpoints(0).bytes(), 7);
  EXPECT_EQ(response.checkpoints(0).error(), "bad header");
}

TEST(TranslateResponseTest, PlacementIsWhole) {
  LoadResult result;
  result.model = "m";
  result.family = "sd1";
  result.placement = {{"unet",
                       "cuda:0",
                       {{"cuda:0", 10, 11, 2}, {"cpu", 20, 20, 3}},
                       {{"b.0", "cpu", 20}},
                       "cpu,4gb"}};
  result.phase_seconds = {{"weights", 1.5}};
  result.denoiser = DenoiserInfo{.flow = true, .sigma_max = 2.5, .latent_mean = {0.5f, 0.25f}};
  v1::LoadCheckpointResponse response;
  ToProto(result, &response);
  EXPECT_TRUE(response.denoiser().flow());
  EXPECT_EQ(response.denoiser().sigma_max(), 2.5);
  EXPECT_EQ(response.denoiser().latent_mean(1), 0.25f);
  const v1::ComponentPlacement& unet = response.placement().components(0);
  EXPECT_EQ(unet.component(), "unet");
  EXPECT_EQ(unet.compute_device(), "cuda:0");
  EXPECT_EQ(unet.allocation(), "cpu,4gb");
  EXPECT_EQ(unet.devices(0).planned_bytes(), 10);
  EXPECT_EQ(unet.devices(0).measured_bytes(), 11);
  EXPECT_EQ(unet.devices(1).blocks(), 3);
  EXPECT_EQ(unet.blocks(0).name(), "b.0");
  EXPECT_EQ(response.phase_seconds().at("weights"), 1.5);
}

TEST(TranslateResponseTest, EncodedTextKeepsEveryPart) {
  EncodeTextResult result;
  result.conditioning_id = "id";
  result.conditioning.cross_attention = {DType::kF32, {1, 1, 1}, "1234"};
  result.conditioning.pooled = HostTensor{DType::kF16, {1, 2}, "1234"};
  result.conditioning.guidance = 3.5;
  v1::EncodeTextResponse response;
  ToProto(std::move(result), &response);
  EXPECT_EQ(response.conditioning_id(), "id");
  EXPECT_EQ(response.conditioning().pooled().dtype(), v1::FLOAT16);
  EXPECT_EQ(response.conditioning().guidance(), 3.5);
  EXPECT_FALSE(response.conditioning().has_attention_mask());
}

TEST(RequestLimitsTest, NameTheFieldTheLimitAndTheFlag) {
  RequestLimits limits;
  limits.image_side = 512;
  limits.batch = 2;
  limits.steps = 50;
  limits.prompt_bytes = 10;
  limits.tensor_mb = 1;
  const auto infer = [&](const std::function<void(v1::InferRequest*)>& change) {
    v1::InferRequest request;
    request.set_model("m");
    request.set_clip("c");
    request.set_vae("v");
    change(&request);
    return ToInferSpec(request, limits);
  };
  EXPECT_TRUE(infer([](auto* r) {
                r->set_width(512);
                r->set_batch_size(2);
                r->mutable_options()->set_steps(50);
                r->set_prompt("0123456789");
              }).ok());
  EXPECT_EQ(MessageOf(infer([](auto* r) { r->set_width(520); })),
            "width: 520 is not from 16 to 512, the server's --max_image_side");
  EXPECT_EQ(MessageOf(infer([](auto* r) { r->set_batch_size(3); })),
            "batch_size: 3 is not from 1 to 2, the server's --max_batch");
  EXPECT_EQ(MessageOf(infer([](auto* r) { r->mutable_options()->set_steps(51); })),
            "options.steps: 51 is not from 1 to 50, the server's --max_steps");
  EXPECT_EQ(MessageOf(infer([](auto* r) { r->set_negative_prompt("a secret garden"); })),
            "negative_prompt: has 15 bytes; the server takes 10 (--max_prompt_bytes)");
  v1::EncodeTextRequest text;
  text.set_clip("c");
  text.set_text("a secret garden");
  EXPECT_THAT(MessageOf(ToEncodeTextSpec(text, limits)), HasSubstr("text: has 15 bytes"));
}

TEST(RequestLimitsTest, HoldForTensorsToo) {
  RequestLimits limits;
  limits.image_side = 512;
  limits.batch = 2;
  limits.tensor_mb = 1;
  const auto decode = [&](const std::vector<int64_t>& shape) {
    int64_t size = 4;
    for (int64_t dim : shape) size *= dim;
    v1::DecodeLatentRequest request;
    request.set_vae("v");
    *request.mutable_latent() =
        MakeTensor(v1::FLOAT32, shape, std::string(static_cast<std::size_t>(size), '\0'));
    return ToDecodeLatentSpec(request, limits);
  };
  EXPECT_TRUE(decode({2, 4, 64, 64}).ok());
  EXPECT_EQ(MessageOf(decode({3, 4, 8, 8})),
            "latent.shape: 3 is not from 1 to 2, the server's --max_batch");
  EXPECT_EQ(MessageOf(decode({1, 4, 1, 65})),
            "latent.shape: 520 is not from 1 to 512, the server's --max_image_side");
  EXPECT_EQ(MessageOf(decode({1, 4097, 8, 8})),
            "latent: has 1048832 bytes; the server takes 1 MiB (--max_tensor_mb)");
  v1::EncodeImageRequest image;
  image.set_vae("v");
  *image.mutable_pixels() = MakeTensor(v1::FLOAT32, {1, 1, 513, 3}, std::string(513 * 12, '\0'));
  EXPECT_THAT(MessageOf(ToEncodeImageSpec(image, limits)),
              HasSubstr("pixels.shape: 513 is not from 1 to 512"));
}

}  // namespace
}  // namespace distorch
