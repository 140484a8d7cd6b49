// The half of translate.h that reads requests.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "server/translate.h"
#include "server/translate_tensor.h"

namespace distorch {
namespace {

constexpr double kMaxVirtualVramGb = 128;
constexpr double kMaxScale = 1000;  // of cfg and guidance
constexpr int kMinImageSide = 16;
constexpr int kMaxPriority = 10;
constexpr int kMinTile = 64, kMaxTile = 8192;
constexpr int kLatentScale = 8;  // pixels of an image to one of its latent, in every family
constexpr std::string_view kImageFormats[] = {"png", "jpeg", "jpg", "webp"};
constexpr const char* kWeightDtypes[] = {"default", "fp32",       "fp16",
                                         "bf16",    "fp8_e4m3fn", "fp8_e5m2"};

template <typename... Parts>
absl::Status Bad(std::string_view field, const Parts&... what) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", what...));
}

absl::Status CheckInt(std::string_view field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return Bad(field, value, " is not from ", min, " to ", max);
}

absl::Status CheckNumber(std::string_view field, double value, double min, double max) {
  if (value >= min && value <= max) return absl::OkStatus();  // false for NaN
  return Bad(field, value, " is not a number from ", min, " to ", max);
}

absl::Status CheckHandle(std::string_view field, const std::string& handle) {
  if (!handle.empty()) return absl::OkStatus();
  return Bad(field, "is required: a handle that LoadCheckpoint returned");
}

// As CheckInt, with a maximum that is the operator's.
absl::Status CheckLimit(std::string_view field, int64_t value, int64_t min, int64_t limit,
                        std::string_view flag) {
  if (value >= min && value <= limit) return absl::OkStatus();
  return Bad(field, value, " is not from ", min, " to ", limit, ", the server's --", flag);
}

absl::Status CheckPrompt(std::string_view field, const std::string& text,
                         const RequestLimits& limits) {
  if (text.size() <= static_cast<std::size_t>(limits.prompt_bytes)) return absl::OkStatus();
  return Bad(field, "has ", text.size(), " bytes; the server takes ", limits.prompt_bytes,
             " (--max_prompt_bytes)");
}

absl::Status CheckTensor(std::string_view field, const v1::Tensor& tensor,
                         const RequestLimits& limits) {
  if (tensor.data().size() <= static_cast<std::size_t>(limits.tensor_mb) << 20)
    return absl::OkStatus();
  return Bad(field, "has ", tensor.data().size(), " bytes; the server takes ", limits.tensor_mb,
             " MiB (--max_tensor_mb)");
}

absl::StatusOr<HostTensor> FloatTensor(const v1::Tensor& tensor, std::string_view field,
                                       const RequestLimits& limits) {
  RETURN_IF_ERROR(CheckTensor(field, tensor, limits));
  return ToFloatTensor(tensor, field);
}

// Latents [N, C, H, W], or images [N, H, W, C] (`channels_last`): no more and no larger ones than
// Infer may ask for. Other ranks are for the core to refuse.
absl::StatusOr<HostTensor> ImageTensor(const v1::Tensor& tensor, std::string_view field,
                                       bool channels_last, const RequestLimits& limits) {
  ASSIGN_OR_RETURN(HostTensor result, FloatTensor(tensor, field, limits));
  if (result.shape.size() != 4) return result;
  const std::string name = absl::StrCat(field, ".shape");
  RETURN_IF_ERROR(CheckLimit(name, result.shape[0], 1, limits.batch, "max_batch"));
  const std::size_t height = channels_last ? 1 : 2;
  for (std::size_t i : {height, height + 1}) {
    RETURN_IF_ERROR(CheckLimit(name, result.shape[i] * (channels_last ? 1 : kLatentScale), 1,
                               limits.image_side, "max_image_side"));
  }
  return result;
}

absl::StatusOr<HostConditioning> ToConditioning(const v1::Conditioning& in,
                                                const std::string& field,
                                                const RequestLimits& limits) {
  HostConditioning out;
  ASSIGN_OR_RETURN(out.cross_attention,
                   FloatTensor(in.cross_attention(), field + ".cross_attention", limits));
  if (in.has_pooled()) {
    ASSIGN_OR_RETURN(out.pooled, FloatTensor(in.pooled(), field + ".pooled", limits));
  }
  if (in.has_attention_mask()) {
    RETURN_IF_ERROR(CheckTensor(field + ".attention_mask", in.attention_mask(), limits));
    ASSIGN_OR_RETURN(out.attention_mask,
                     ToAnyTensor(in.attention_mask(), field + ".attention_mask"));
  }
  if (in.has_concat()) {
    ASSIGN_OR_RETURN(out.concat, FloatTensor(in.concat(), field + ".concat", limits));
  }
  if (in.has_guidance()) {
    RETURN_IF_ERROR(CheckNumber(field + ".guidance", in.guidance(), 0, kMaxScale));
    out.guidance = in.guidance();
  }
  if (in.has_size()) {
    const v1::SizeConditioning& size = in.size();
    for (int value : {size.width(), size.height(), size.crop_w(), size.crop_h(),
                      size.target_width(), size.target_height()}) {
      RETURN_IF_ERROR(CheckInt(field + ".size", value, 0, 1 << 20));
    }
    out.size = HostSizeConditioning{size.width(),  size.height(),       size.crop_w(),
                                    size.crop_h(), size.target_width(), size.target_height(),
                                    std::nullopt};
    if (size.has_aesthetic_score()) {
      RETURN_IF_ERROR(
          CheckNumber(field + ".size.aesthetic_score", size.aesthetic_score(), 0, 1000));
      out.size->aesthetic_score = size.aesthetic_score();
    }
  }
  return out;
}

// 0 and "" in fields without presence: the reference node's defaults, which the struct has.
absl::StatusOr<SamplingOptions> ToSamplingOptions(const v1::SamplingOptions& in,
                                                  const RequestLimits& limits) {
  SamplingOptions out;
  out.seed = in.seed();
  if (in.steps() != 0) out.steps = in.steps();
  if (in.cfg() != 0) out.cfg = in.cfg();
  if (!in.sampler_name().empty()) out.sampler_name = in.sampler_name();
  if (!in.scheduler().empty()) out.scheduler = in.scheduler();
  if (in.denoise() != 0) out.denoise = in.denoise();
  RETURN_IF_ERROR(CheckLimit("options.steps", out.steps, 1, limits.steps, "max_steps"));
  RETURN_IF_ERROR(CheckNumber("options.cfg", out.cfg, 0, kMaxScale));
  RETURN_IF_ERROR(CheckNumber("options.denoise", out.denoise, 0, 1));
  if (in.has_start_step()) {
    RETURN_IF_ERROR(
        CheckLimit("options.start_step", in.start_step(), 0, limits.steps, "max_steps"));
    out.start_step = in.start_step();
  }
  if (in.has_end_step()) {
    RETURN_IF_ERROR(CheckLimit("options.end_step", in.end_step(), 0, limits.steps, "max_steps"));
    out.end_step = in.end_step();
  }
  if (in.has_guidance()) {
    RETURN_IF_ERROR(CheckNumber("options.guidance", in.guidance(), 0, kMaxScale));
    out.guidance = in.guidance();
  }
  out.parallel = in.parallel();
  if (in.has_add_noise()) out.add_noise = in.add_noise();
  if (in.has_force_full_denoise()) out.force_full_denoise = in.force_full_denoise();
  return out;
}

absl::StatusOr<int> ToPriority(int value) {
  RETURN_IF_ERROR(CheckInt("options.priority", value, -kMaxPriority, kMaxPriority));
  return value;
}

absl::StatusOr<std::vector<double>> ToSigmas(const google::protobuf::RepeatedField<double>& in,
                                             std::string_view field) {
  for (double sigma : in) {
    if (!(std::isfinite(sigma) && sigma >= 0))
      return Bad(field, sigma, " is not a finite number of at least 0");
  }
  return std::vector<double>(in.begin(), in.end());
}

// An empty string says as little as an absent one where a name is expected.
std::optional<std::string> NonEmpty(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional<std::string>(text);
}

absl::StatusOr<int> ToImageSide(std::string_view field, int value, const RequestLimits& limits) {
  if (value == 0) return std::min(InferSpec().width, limits.image_side / 8 * 8);
  RETURN_IF_ERROR(CheckLimit(field, value, kMinImageSide, limits.image_side, "max_image_side"));
  if (value % 8 != 0) return Bad(field, value, " is not a multiple of 8");
  return value;
}

absl::StatusOr<int> ToTileSize(int value) {
  if (value == 0) return 0;
  RETURN_IF_ERROR(CheckInt("tile_size", value, kMinTile, kMaxTile));
  if (value % 8 != 0) return Bad("tile_size", value, " is not a multiple of 8");
  return value;
}

}  // namespace

absl::StatusOr<LoadSpec> ToLoadSpec(const v1::LoadCheckpointRequest& in) {
  if (in.ckpt_name().empty())
    return Bad("ckpt_name", "is required: a name that ListCheckpoints returns");
  LoadSpec out;
  out.ckpt_name = in.ckpt_name();
  out.unet_compute_device = NonEmpty(in.unet_compute_device());
  out.unet_donor_device = NonEmpty(in.unet_donor_device());
  out.clip_compute_device = NonEmpty(in.clip_compute_device());
  out.clip_donor_device = NonEmpty(in.clip_donor_device());
  out.vae_device = NonEmpty(in.vae_device());
  out.unet_expert_mode_allocations = NonEmpty(in.unet_expert_mode_allocations());
  out.clip_expert_mode_allocations = NonEmpty(in.clip_expert_mode_allocations());
  out.weight_dtype = NonEmpty(in.weight_dtype());
  out.execution = NonEmpty(in.execution());
  if (in.has_unet_virtual_vram_gb()) {
    RETURN_IF_ERROR(
        CheckNumber("unet_virtual_vram_gb", in.unet_virtual_vram_gb(), 0, kMaxVirtualVramGb));
    out.unet_virtual_vram_gb = in.unet_virtual_vram_gb();
  }
  if (in.has_clip_virtual_vram_gb()) {
    RETURN_IF_ERROR(
        CheckNumber("clip_virtual_vram_gb", in.clip_virtual_vram_gb(), 0, kMaxVirtualVramGb));
    out.clip_virtual_vram_gb = in.clip_virtual_vram_gb();
  }
  if (in.has_lease_seconds()) {
    if (in.lease_seconds() < 0) return Bad("lease_seconds", in.lease_seconds(), " is negative");
    out.lease_seconds = in.lease_seconds();
  }
  if (in.has_high_precision_loras()) out.high_precision_loras = in.high_precision_loras();
  if (in.has_eject_models()) out.eject_models = in.eject_models();
  if (in.has_reference_rounding()) out.reference_rounding = in.reference_rounding();
  if (out.weight_dtype.has_value() && !absl::c_linear_search(kWeightDtypes, *out.weight_dtype)) {
    return Bad("weight_dtype", Quoted(*out.weight_dtype), " is not one of ",
               absl::StrJoin(kWeightDtypes, ", "));
  }
  return out;
}

absl::StatusOr<UnloadSpec> ToUnloadSpec(const v1::UnloadRequest& in) {
  if (in.all() == (in.handles_size() > 0)) {
    return Bad("handles",
               in.all() ? "must be empty when all is set" : "is required unless all is set");
  }
  for (const std::string& handle : in.handles()) RETURN_IF_ERROR(CheckHandle("handles", handle));
  return UnloadSpec{{in.handles().begin(), in.handles().end()}, in.all(), in.force()};
}

absl::StatusOr<ApplyLoraSpec> ToApplyLoraSpec(const v1::ApplyLoraRequest& in) {
  if (in.model().empty() && in.clip().empty())
    return Bad("model", "is required unless clip is given");
  if (!in.model().empty()) RETURN_IF_ERROR(CheckHandle("model", in.model()));
  if (!in.clip().empty()) RETURN_IF_ERROR(CheckHandle("clip", in.clip()));
  if (in.lora_name().empty()) return Bad("lora_name", "is required");
  return ApplyLoraSpec{in.model(), in.clip(), in.lora_name(), in.strength_model(),
                       in.strength_clip()};
}

absl::Status CheckClipSkip(const v1::SetClipSkipRequest& in) {
  RETURN_IF_ERROR(CheckHandle("clip", in.clip()));
  if (in.stop_at_layer() > -1) {
    return Bad("stop_at_layer", in.stop_at_layer(),
               " is not -1 (the last layer) or less (earlier ones)");
  }
  return absl::OkStatus();
}

absl::StatusOr<EncodeTextSpec> ToEncodeTextSpec(const v1::EncodeTextRequest& in,
                                                const RequestLimits& limits) {
  RETURN_IF_ERROR(CheckHandle("clip", in.clip()));
  RETURN_IF_ERROR(CheckPrompt("text", in.text(), limits));
  return EncodeTextSpec{in.clip(), in.text()};
}

absl::StatusOr<SampleSpec> ToSampleSpec(const v1::SampleRequest& in, const RequestLimits& limits) {
  SampleSpec out;
  RETURN_IF_ERROR(CheckHandle("model", in.model()));
  out.model = in.model();
  ASSIGN_OR_RETURN(out.options, ToSamplingOptions(in.options(), limits));
  ASSIGN_OR_RETURN(out.priority, ToPriority(in.options().priority()));
  out.positive.id = in.positive_id();
  out.negative.id = in.negative_id();
  if (in.has_positive()) {
    ASSIGN_OR_RETURN(out.positive.value, ToConditioning(in.positive(), "positive", limits));
  }
  if (in.has_negative()) {
    ASSIGN_OR_RETURN(out.negative.value, ToConditioning(in.negative(), "negative", limits));
  }
  if (!out.positive.value.has_value() && out.positive.id.empty()) {
    return Bad("positive", "is required: a conditioning, or positive_id from EncodeText");
  }
  if (!out.negative.value.has_value() && out.negative.id.empty()) {
    return Bad("negative", "is required: a conditioning, or negative_id from EncodeText");
  }
  ASSIGN_OR_RETURN(out.latent, ImageTensor(in.latent(), "latent", /*channels_last=*/false, limits));
  if (in.has_noise()) {
    ASSIGN_OR_RETURN(out.noise, ImageTensor(in.noise(), "noise", /*channels_last=*/false, limits));
  }
  if (in.has_noise_mask()) {
    ASSIGN_OR_RETURN(out.noise_mask, FloatTensor(in.noise_mask(), "noise_mask", limits));
  }
  RETURN_IF_ERROR(CheckLimit("preview_every", in.preview_every(), 0, limits.steps, "max_steps"));
  out.preview_every = in.preview_every();
  ASSIGN_OR_RETURN(out.sigmas, ToSigmas(in.sigmas(), "sigmas"));
  RETURN_IF_ERROR(CheckLimit("sigmas: their number", in.sigmas_size(), 0, limits.steps + 1,
                             "max_steps and one"));
  return out;
}

absl::StatusOr<DenoiseSpec> ToDenoiseSpec(const v1::DenoiseRequest& in,
                                          const RequestLimits& limits) {
  DenoiseSpec out;
  RETURN_IF_ERROR(CheckHandle("model", in.model()));
  out.model = in.model();
  ASSIGN_OR_RETURN(out.x, ImageTensor(in.x(), "x", /*channels_last=*/false, limits));
  ASSIGN_OR_RETURN(out.sigma, ToSigmas(in.sigma(), "sigma"));
  if (in.sigma_size() != 1 && in.sigma_size() != out.x.shape[0]) {
    return Bad("sigma", "has ", in.sigma_size(), " numbers; it needs one, or one for each of the ",
               out.x.shape[0], " items of x");
  }
  ASSIGN_OR_RETURN(out.conditioning, ToConditioning(in.conditioning(), "conditioning", limits));
  return out;
}

absl::StatusOr<DecodeLatentSpec> ToDecodeLatentSpec(const v1::DecodeLatentRequest& in,
                                                    const RequestLimits& limits) {
  DecodeLatentSpec out;
  RETURN_IF_ERROR(CheckHandle("vae", in.vae()));
  out.vae = in.vae();
  ASSIGN_OR_RETURN(out.latent, ImageTensor(in.latent(), "latent", /*channels_last=*/false, limits));
  out.as_png = in.as_png();
  ASSIGN_OR_RETURN(out.tile_size, ToTileSize(in.tile_size()));
  return out;
}

absl::StatusOr<EncodeImageSpec> ToEncodeImageSpec(const v1::EncodeImageRequest& in,
                                                  const RequestLimits& limits) {
  EncodeImageSpec out;
  RETURN_IF_ERROR(CheckHandle("vae", in.vae()));
  out.vae = in.vae();
  if (in.has_pixels()) {
    ASSIGN_OR_RETURN(out.pixels,
                     ImageTensor(in.pixels(), "pixels", /*channels_last=*/true, limits));
  } else if (in.encoded().empty()) {
    return Bad("image", "is required: pixels, or encoded (the bytes of a PNG, JPEG or WebP file)");
  }
  out.encoded = in.encoded();
  ASSIGN_OR_RETURN(out.tile_size, ToTileSize(in.tile_size()));
  return out;
}

absl::StatusOr<InferSpec> ToInferSpec(const v1::InferRequest& in, const RequestLimits& limits) {
  InferSpec out;
  RETURN_IF_ERROR(CheckHandle("model", in.model()));
  RETURN_IF_ERROR(CheckHandle("clip", in.clip()));
  RETURN_IF_ERROR(CheckHandle("vae", in.vae()));
  out.model = in.model();
  out.clip = in.clip();
  out.vae = in.vae();
  RETURN_IF_ERROR(CheckPrompt("prompt", in.prompt(), limits));
  RETURN_IF_ERROR(CheckPrompt("negative_prompt", in.negative_prompt(), limits));
  out.prompt = in.prompt();
  out.negative_prompt = in.negative_prompt();
  ASSIGN_OR_RETURN(out.width, ToImageSide("width", in.width(), limits));
  ASSIGN_OR_RETURN(out.height, ToImageSide("height", in.height(), limits));
  if (in.batch_size() != 0) out.batch_size = in.batch_size();
  RETURN_IF_ERROR(CheckLimit("batch_size", out.batch_size, 1, limits.batch, "max_batch"));
  ASSIGN_OR_RETURN(out.options, ToSamplingOptions(in.options(), limits));
  ASSIGN_OR_RETURN(out.priority, ToPriority(in.options().priority()));
  constexpr char kEmptyImage[] = "is empty; send a PNG, JPEG or WebP file, or leave it out";
  if (in.has_init_image() && in.init_image().empty()) return Bad("init_image", kEmptyImage);
  if (in.has_mask_image() && in.mask_image().empty()) return Bad("mask_image", kEmptyImage);
  out.init_image = in.init_image();
  out.mask_image = in.mask_image();
  if (out.init_image.empty() && !out.mask_image.empty()) {
    return Bad("mask_image", "needs init_image, the image that it masks");
  }
  RETURN_IF_ERROR(CheckLimit("preview_every", in.preview_every(), 0, limits.steps, "max_steps"));
  out.preview_every = in.preview_every();
  if (!in.image_format().empty()) {
    if (!absl::c_linear_search(kImageFormats, in.image_format())) {
      return Bad("image_format", Quoted(in.image_format()), " is not one of ",
                 absl::StrJoin(kImageFormats, ", "));
    }
    out.image_format = in.image_format();
  }
  ASSIGN_OR_RETURN(out.tile_size, ToTileSize(in.tile_size()));
  return out;
}

}  // namespace distorch
