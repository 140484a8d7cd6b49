#include "lib/serving/forecasts.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "lib/base/status_macros.h"
#include "lib/distorch/allocation.h"
#include "lib/serving/registry.h"

namespace distorch {
namespace {

constexpr double kSmallestFactor = 1.0 / 64, kLargestFactor = 1024;
constexpr int kBisections = 24;

}  // namespace

double FactorFor(double seconds, double now, const std::function<double(double factor)>& predict) {
  double low = kSmallestFactor, high = kLargestFactor;
  if (predict(low) >= seconds) return now;
  if (predict(high) <= seconds) return high;
  for (int i = 0; i < kBisections; ++i) {
    const double middle = std::sqrt(low * high);
    (predict(middle) < seconds ? low : high) = middle;
  }
  return std::sqrt(low * high);
}

StepForecasts::StepForecasts(const DeviceManager& devices, const LinkTable& links,
                             int64_t staging_bytes, Observer* observer)
    : devices_(devices),
      device_ids_(WithDisk(devices.devices())),
      links_(links),
      staging_bytes_(staging_bytes),
      observer_(observer),
      speeds_(devices) {}

int StepForecasts::PositionOf(const DeviceId& device) const {
  return static_cast<int>(std::find(device_ids_.begin(), device_ids_.end(), device) -
                          device_ids_.begin());
}

std::optional<double> StepForecasts::FactorOf(const std::string& ckpt_name) const {
  absl::MutexLock lock(&mutex_);
  const auto found = factors_.find(ckpt_name);
  if (found == factors_.end()) return std::nullopt;
  return found->second;
}

absl::StatusOr<StepModel> StepForecasts::ModelOf(const std::string& ckpt_name, StepWork work,
                                                 const StepPlacement& placement) {
  StepModel model;
  model.work = std::move(work);
  model.bytes = placement.bytes;
  model.devices = device_ids_;
  for (const DeviceId& device : device_ids_) {
    DeviceSpeed speed{1};  // of a disk, where nothing runs
    if (!device.is_disk()) {
      ASSIGN_OR_RETURN(speed, speeds_.Of(device, placement.dtype));
    }
    model.speeds.push_back(speed);
  }
  model.links = links_;
  model.compute = PositionOf(placement.compute);
  model.staging_bytes = staging_bytes_;
  model.compute_factor = FactorOf(ckpt_name).value_or(1);
  return model;
}

std::optional<StepModel> StepForecasts::ModelOf(const LoadedComponent& component,
                                                const models::StepSize& size) {
  StepWork work = component.model().Work(size);
  if (work.blocks.empty() || work.blocks.size() != component.step.assignment.size())
    return std::nullopt;
  absl::StatusOr<StepModel> model = ModelOf(component.ckpt_name, std::move(work), component.step);
  if (!model.ok()) return std::nullopt;  // loading it measured the devices
  return *std::move(model);
}

PhaseForecast StepForecasts::Evaluation(const LoadedComponent& component,
                                        const models::StepSize& size) {
  std::optional<StepModel> model = ModelOf(component, size);
  if (!model) return {};
  const StepPlacement& placement = component.step;
  return {StepPredictor(*std::move(model)).Seconds(placement.assignment, placement.unit_devices),
          FactorOf(component.ckpt_name).has_value()};
}

void StepForecasts::Learn(const LoadedComponent& component, const models::StepSize& size,
                          double seconds) {
  std::optional<StepModel> model = ModelOf(component, size);
  if (!model) return;
  const StepPlacement& placement = component.step;
  const auto predict = [&](double factor) {
    model->compute_factor = factor;
    return StepPredictor(*model).Seconds(placement.assignment, placement.unit_devices);
  };
  const double now = model->compute_factor;
  const double predicted = predict(now);
  observer_->PredictionError(component.family, std::abs(seconds - predicted) / predicted);
  const double right = FactorFor(seconds, now, predict);
  absl::MutexLock lock(&mutex_);
  // Half way, in the logarithm: one slow step is not the rule.
  factors_[component.ckpt_name] = std::sqrt(now * right);
}

}  // namespace distorch
