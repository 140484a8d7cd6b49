// What the steps of one sampling took, for predictions to learn from.
#ifndef LIB_SERVING_STEP_TIMES_H_
#define LIB_SERVING_STEP_TIMES_H_

#include <chrono>
#include <optional>
#include <vector>

#include "lib/pipeline/sample_latent.h"
#include "lib/serving/phases.h"
#include "lib/serving/registry.h"

namespace distorch {

// What sampling `inputs` is predicted to take `model`, but for what the forecasts know nothing of.
PhaseForecast ForecastSampling(const LoadedComponent& model, const pipeline::SampleInputs& inputs);

// One sampling, one thread.
class StepTimes {
 public:
  // `observer`, with the times of its steps taken; it may be called while this lives.
  pipeline::StepObserver Around(pipeline::StepObserver observer);

  // Tells the model's forecasts what an evaluation took, once `inputs` are sampled on its compute
  // device. Nothing after fewer than three steps (the first learns the weights' order), or when the
  // sampler does not evaluate the model as often in every step.
  void Teach(const LoadedComponent& model, const pipeline::SampleInputs& inputs) const;

  // The median of all steps but the first.
  std::optional<double> TypicalSeconds() const;

 private:
  std::vector<std::chrono::steady_clock::time_point> ends_;
};

}  // namespace distorch

#endif  // LIB_SERVING_STEP_TIMES_H_
