// Classifier-free guidance (Ho & Salimans, 2022): one denoiser out of a conditional and an
// unconditional prediction.
#ifndef LIB_SAMPLING_GUIDANCE_H_
#define LIB_SAMPLING_GUIDANCE_H_

#include <ATen/ATen.h>

#include <functional>

#include "absl/status/statusor.h"

namespace distorch::sampling {

// What samplers call: the prediction of x0 for the noised latents x at the level sigma.
struct Denoised {
  at::Tensor guided;
  at::Tensor uncond;  // defined when it was evaluated
};
using GuidedModel = std::function<absl::StatusOr<Denoised>(const at::Tensor& x, double sigma)>;

// What models offer: both predictions, or `cond` alone when !with_uncond. One call, so that a model
// may run both in one batch and bring its weights in once.
struct Predictions {
  at::Tensor cond;
  at::Tensor uncond;
};
using ConditionedModel =
    std::function<absl::StatusOr<Predictions>(const at::Tensor& x, double sigma, bool with_uncond)>;

// The guided prediction is uncond + (cond - uncond) * cfg. At cfg 1 uncond cancels out and is not
// evaluated, unless the sampler needs it (SamplerNeedsUncond).
GuidedModel ClassifierFreeGuidance(ConditionedModel model, double cfg, bool sampler_needs_uncond);

}  // namespace distorch::sampling

#endif  // LIB_SAMPLING_GUIDANCE_H_
