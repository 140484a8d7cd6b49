// Samplers: solvers of the diffusion ODE or SDE, as functions over a denoiser.
#ifndef LIB_SAMPLING_SAMPLER_H_
#define LIB_SAMPLING_SAMPLER_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/sampling/guidance.h"
#include "lib/sampling/model_sampling.h"
#include "lib/sampling/noise.h"

namespace distorch::sampling {

// Called at the end of every step: `step` (1-based) of `steps` are finished, x is the state after
// it and `denoised` the prediction of x0 it was made with. The tensors may be kept. A status that
// is not OK stops sampling with that status.
using StepCallback = std::function<absl::Status(int step, int steps, const at::Tensor& x,
                                                const at::Tensor& denoised)>;

// Everything a sampler sees of the world. One run, one thread.
class SamplerRun {
 public:
  // `sampling`, `model` and `on_step` (which may be empty) must outlive the run. sigmas: at least
  // two.
  SamplerRun(const ModelSampling& sampling, std::vector<float> sigmas, uint64_t seed,
             const GuidedModel& model, const StepCallback& on_step);

  const ModelSampling& sampling() const { return sampling_; }
  const std::vector<float>& sigmas() const { return sigmas_; }
  float sigma(int i) const { return sigmas_[i]; }
  int steps() const { return static_cast<int>(sigmas_.size()) - 1; }
  uint64_t seed() const { return seed_; }

  // The guided prediction.
  absl::StatusOr<at::Tensor> Denoise(const at::Tensor& x, float sigma) const;

  // Both predictions: INTERNAL when `with_uncond` and the model did not give the unconditional one.
  absl::StatusOr<Denoised> DenoiseBoth(const at::Tensor& x, float sigma,
                                       bool with_uncond = true) const;

  // Noise of variance 1, the next draw of the seed's stream.
  at::Tensor Noise(const at::Tensor& like) { return noise_.Draw(like); }

  // To be called when the step of this index (0-based) is finished.
  absl::Status StepDone(int index, const at::Tensor& x, const at::Tensor& denoised) const;

 private:
  const ModelSampling& sampling_;
  const std::vector<float> sigmas_;
  const uint64_t seed_;
  const GuidedModel& model_;
  const StepCallback& on_step_;
  NoiseSource noise_;
};

// Takes x from run.sigmas().front() to run.sigmas().back(). Tensors stay on x's device, in float32;
// scalars are float32, as the published results were computed.
using SamplerFunction = absl::StatusOr<at::Tensor> (*)(SamplerRun& run, at::Tensor x);

struct Sampler {
  std::string_view name;
  SamplerFunction function;
  // CFG++ (Chung et al., 2024): the unconditional prediction is needed whatever the guidance scale.
  bool needs_uncond = false;
  // The last level before 0 is left out of schedules: an extra evaluation so close to 0 harms these
  // solvers.
  bool skips_penultimate_sigma = false;
  // Masked regions are noised with noise of their own (seed + 1) in place of the initial noise.
  bool fresh_mask_noise = false;
  // Of the model, in every step but a last one to 0; 0: as many as the solver finds that it needs.
  int evaluations = 1;
  // Stands in for a final 0, where the solver's time is infinite.
  float terminal_sigma = 0;
};

// INVALID_ARGUMENT for an unknown name, naming the field `sampler_name`. The result lives as long
// as the program.
absl::StatusOr<const Sampler*> FindSampler(std::string_view name);

// In the order clients list them.
std::span<const std::string_view> SamplerNames();

}  // namespace distorch::sampling

#endif  // LIB_SAMPLING_SAMPLER_H_
