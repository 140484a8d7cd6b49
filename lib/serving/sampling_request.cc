#include "lib/serving/sampling_request.h"

#include <chrono>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/pipeline/pixels.h"
#include "lib/pipeline/png_codec.h"
#include "lib/sampling/sample.h"

namespace distorch {
namespace {

constexpr double kMaxCfg = 1000;  // far above any use; keeps float32 finite
constexpr size_t kMaxPromptBytes = 1 << 20;

}  // namespace

absl::Status CheckPrompt(std::string_view field, const std::string& text) {
  if (text.size() <= kMaxPromptBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      field, ": ", text.size(), " bytes are too long; allowed: up to ", kMaxPromptBytes));
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
                                   const models::LatentFormat& format, Observer* observer,
                                   const std::string& family) {
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
          auto png = EncodePng(pipeline::LatentPreview(denoised, format), {});
          if (png.ok()) event.preview_png = *std::move(png);  // a preview is never worth a request
        }
        progress(event);
      };
}

}  // namespace distorch
