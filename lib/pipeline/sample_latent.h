// From conditionings and a latent to a sampled latent: guidance over a model, and the two latent
// spaces.
#ifndef LIB_PIPELINE_SAMPLE_LATENT_H_
#define LIB_PIPELINE_SAMPLE_LATENT_H_

#include <ATen/core/Tensor.h>

#include <functional>

#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/models/diffusion_model.h"
#include "lib/pipeline/device_team.h"
#include "lib/sampling/sample.h"
#include "lib/text/conditioning.h"

namespace distorch::pipeline {

struct SampleInputs {
  text::Conditioning positive, negative;
  at::Tensor latent;      // [N, C, h, w] float32 on the CPU, the user's space
  at::Tensor noise;       // like latent; undefined: the seed's
  at::Tensor noise_mask;  // as sampling::Sample takes it, 1 where to repaint; undefined: everywhere
  double cfg = 8.0;
  sampling::SampleArgs args;
};

// `denoised` is the current guess of the result, float32 in the model's space on its compute
// device.
using StepObserver = std::function<void(int step, int steps, const at::Tensor& denoised)>;

// Returns the sampled latent like inputs.latent. Both halves of the guidance run as one batch where
// their lengths allow; the batch is spread over `team`, which changes nothing but the time.
// `cancel` is checked at every evaluation of the model. INVALID_ARGUMENT naming what does not fit;
// else LibTorch's errors.
absl::StatusOr<at::Tensor> SampleLatent(const models::DiffusionModel& model,
                                        const SampleInputs& inputs, const CancelToken& cancel,
                                        const StepObserver& observer, const Team& team = {});

}  // namespace distorch::pipeline

#endif  // LIB_PIPELINE_SAMPLE_LATENT_H_
