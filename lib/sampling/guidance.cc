#include "lib/sampling/guidance.h"

#include <cmath>
#include <utility>

#include "lib/base/status_macros.h"

namespace distorch::sampling {

GuidedModel ClassifierFreeGuidance(ConditionedModel model, double cfg, bool sampler_needs_uncond) {
  const bool is_one = std::abs(cfg - 1) <= 1e-9;
  const bool with_uncond = !is_one || sampler_needs_uncond;
  return [model = std::move(model), cfg, with_uncond](const at::Tensor& x,
                                                      double sigma) -> absl::StatusOr<Denoised> {
    ASSIGN_OR_RETURN(Predictions predictions, model(x, sigma, with_uncond));
    if (!with_uncond) return Denoised{.guided = std::move(predictions.cond), .uncond = {}};
    at::Tensor guided = (predictions.cond - predictions.uncond).mul_(cfg).add_(predictions.uncond);
    return Denoised{.guided = std::move(guided), .uncond = std::move(predictions.uncond)};
  };
}

}  // namespace distorch::sampling
