// Everything between a latent and a sampled latent: the schedule, the noise, the mask, the sampler.
#ifndef LIB_SAMPLING_SAMPLE_H_
#define LIB_SAMPLING_SAMPLE_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/sampling/guidance.h"
#include "lib/sampling/model_sampling.h"
#include "lib/sampling/sampler.h"

namespace distorch::sampling {

struct SampleArgs {
  uint64_t seed = 0;
  int steps = 20;
  std::string sampler_name = "euler";
  std::string scheduler = "normal";
  // Below 1 the latent is only partly noised: the last `steps` of a schedule of steps / denoise. At
  // 0 nothing is done.
  double denoise = 1.0;
  // Of the schedule's steps those from start_step up to, not including, end_step.
  std::optional<int> start_step, end_step;
  bool add_noise = true;
  // Whether a schedule cut short by end_step goes to 0 with its last step, or leaves the latent
  // noised.
  bool force_full_denoise = true;
  // Noise levels of one's own; when not empty, steps, scheduler and denoise are ignored.
  std::vector<double> sigmas;
};

// INVALID_ARGUMENT naming the field and what is allowed: steps 1…10000, denoise 0…1, start_step and
// end_step 0…10000, steps / denoise at most a million, known names; sigmas finite and above 0, the
// last may be 0.
absl::Status ValidateSampleArgs(const SampleArgs& args);

// The noise levels a run goes through: one more than it has steps, or none when there is nothing to
// do. Fails as ValidateSampleArgs does.
absl::StatusOr<std::vector<float>> SigmasFor(const ModelSampling& sampling, const SampleArgs& args);

// Whether the model must give the unconditional prediction at any guidance scale. False for an
// unknown name.
bool SamplerNeedsUncond(const std::string& sampler_name);

// Samples from `latent` [N, C, H, W], which is in the model's own (scaled) space, as is the result;
// both on the same device, in float32.
//   noise       of the latent's shape; absent: drawn from the seed. Unused without add_noise.
//   noise_mask  [H', W'], [M, H', W'] or [M, 1, H', W'], resized to the latent; 1 where to sample,
//   0 where to keep the
//               latent, which is shown to the model noised to each step's level.
//   on_step     may be empty; a status that is not OK stops the run with that status.
// LibTorch's errors come back as RunTorch says; the model's own are passed on.
absl::StatusOr<at::Tensor> Sample(const ModelSampling& sampling, const GuidedModel& model,
                                  const at::Tensor& latent, const std::optional<at::Tensor>& noise,
                                  const std::optional<at::Tensor>& noise_mask,
                                  const SampleArgs& args, const StepCallback& on_step);

}  // namespace distorch::sampling

#endif  // LIB_SAMPLING_SAMPLE_H_
