#include "lib/serving/step_times.h"

#include <algorithm>
#include <utility>

#include "lib/sampling/sampler.h"
#include "lib/serving/forecasts.h"

namespace distorch {
namespace {

// Of one evaluation of `model` in sampling `inputs`.
models::StepSize SizeOf(const LoadedComponent& model, const pipeline::SampleInputs& inputs,
                        const sampling::Sampler& sampler) {
  const bool both_sides = inputs.cfg != 1 || sampler.needs_uncond;
  models::StepSize size;
  size.height = inputs.latent.size(2);
  size.width = inputs.latent.size(3);
  size.batch = inputs.latent.size(0) * (both_sides ? 2 : 1);
  size.element_bytes = static_cast<int64_t>(c10::elementSize(model.component->compute().dtype));
  return size;
}

int StepsOf(const sampling::SampleArgs& args) {
  const int all = args.sigmas.empty() ? args.steps : static_cast<int>(args.sigmas.size()) - 1;
  return std::max(0, std::min(args.end_step.value_or(all), all) - args.start_step.value_or(0));
}

}  // namespace

PhaseForecast ForecastSampling(const LoadedComponent& model, const pipeline::SampleInputs& inputs) {
  const auto sampler = sampling::FindSampler(inputs.args.sampler_name);
  if (model.forecasts == nullptr || !sampler.ok()) return {};
  PhaseForecast forecast = model.forecasts->Evaluation(model, SizeOf(model, inputs, **sampler));
  // Of samplers that evaluate as often as they need to, one at least a step is known.
  forecast.seconds *= StepsOf(inputs.args) * std::max(1, (*sampler)->evaluations);
  return forecast;
}

pipeline::StepObserver StepTimes::Around(pipeline::StepObserver observer) {
  return [this, observer = std::move(observer)](int step, int steps, const at::Tensor& denoised) {
    ends_.push_back(std::chrono::steady_clock::now());
    if (observer) observer(step, steps, denoised);
  };
}

std::optional<double> StepTimes::TypicalSeconds() const {
  constexpr size_t kFewest = 3;
  if (ends_.size() < kFewest) return std::nullopt;
  std::vector<double> seconds;
  for (size_t i = 1; i < ends_.size(); ++i)
    seconds.push_back(std::chrono::duration<double>(ends_[i] - ends_[i - 1]).count());
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

void StepTimes::Teach(const LoadedComponent& model, const pipeline::SampleInputs& inputs) const {
  const auto sampler = sampling::FindSampler(inputs.args.sampler_name);
  const std::optional<double> seconds = TypicalSeconds();
  if (model.forecasts == nullptr || !seconds || !sampler.ok() || (*sampler)->evaluations == 0)
    return;
  model.forecasts->Learn(model, SizeOf(model, inputs, **sampler),
                         *seconds / (*sampler)->evaluations);
}

}  // namespace distorch
