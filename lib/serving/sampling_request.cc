#include "lib/serving/sampling_request.h"

#include <chrono>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/pipeline/pixels.h"
#include "lib/pipeline/png_codec.h"
#include "lib/sampling/sample.h"

namespace distorch {
namespace {

constexpr double kMaxCfg = 1000;  // far above any use; keeps float32 finite
constexpr size_t kMaxPromptBytes = 1 << 20;

// PNG; empty when there could be none: a preview is never worth a request.
std::string Preview(const at::Tensor& denoised, const models::LatentFormat& format,
                    const nn::Taesd* decoder) {
  absl::StatusOr<Image8> image = absl::NotFoundError("no decoder");
  if (decoder != nullptr) {
    image = RunTorchOr<Image8>([&] { return pipeline::DecodedPreview(denoised, *decoder); });
  }
  if (!image.ok()) {
    image = RunTorchOr<Image8>([&] { return pipeline::LatentPreview(denoised, format); });
  }
  if (!image.ok()) return "";
  return EncodePng(*image, {}).value_or("");
}

}  // namespace

absl::Status CheckPrompt(std::string_view field, const std::string& text) {
  if (text.size() <= kMaxPromptBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      field, ": ", text.size(), " bytes are too long; allowed: up to ", kMaxPromptBytes));
}

absl::Status CheckTileSize(int tile_size) {
  constexpr int kMin = 64, kMax = 8192, kUnit = 8;
  if (tile_size == 0 || (tile_size >= kMin && tile_size <= kMax && tile_size % kUnit == 0))
    return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tile_size: ", tile_size,
                                                 "; allowed: 0, or multiples of ", kUnit, " from ",
                                                 kMin, " to ", kMax));
}

absl::StatusOr<sampling::SampleArgs> ToSampleArgs(const SamplingOptions& options,
                                                  const std::vector<double>& sigmas) {
  if (!std::isfinite(options.cfg) || options.cfg < 0 || options.cfg > kMaxCfg) {
    return absl::InvalidArgumentError(
        absl::StrCat("cfg: ", options.cfg, " is out of range; allowed: 0 to ", kMaxCfg));
  }
  sampling::SampleArgs args;
  args.seed = options.seed;
  args.steps = options.steps;
  args.sampler_name = options.sampler_name;
  args.scheduler = options.scheduler;
  args.denoise = options.denoise;
  args.start_step = options.start_step;
  args.end_step = options.end_step;
  args.add_noise = options.add_noise.value_or(true);
  args.force_full_denoise = options.force_full_denoise.value_or(true);
  args.sigmas = sigmas;
  RETURN_IF_ERROR(sampling::ValidateSampleArgs(args));
  return args;
}

pipeline::StepObserver ReportSteps(const InferCallbacks& callbacks, int preview_every,
                                   const models::LatentFormat& format, PreviewDecoders* decoders,
                                   Observer* observer, const std::string& family) {
  auto last =
      std::make_shared<std::chrono::steady_clock::time_point>(std::chrono::steady_clock::now());
  return
      [=, progress = callbacks.progress, &format](int step, int steps, const at::Tensor& denoised) {
        const auto now = std::chrono::steady_clock::now();
        StepProgress event;
        event.step = step;
        event.steps = steps;
        event.seconds = std::chrono::duration<double>(now - *last).count();
        *last = now;
        observer->PhaseDone("step", family, event.seconds);
        if (!progress) return;
        if (preview_every > 0 && step % preview_every == 0 && step < steps) {
          event.preview_png = Preview(denoised, format, decoders->For(format));
        }
        progress(event);
      };
}

}  // namespace distorch
