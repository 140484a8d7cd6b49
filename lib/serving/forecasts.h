// How long the steps of models take on this machine: predicted from what its devices and links were
// measured to do, and corrected by the steps that were measured since.
#ifndef LIB_SERVING_FORECASTS_H_
#define LIB_SERVING_FORECASTS_H_

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/device/device_manager.h"
#include "lib/device/device_speeds.h"
#include "lib/device/links.h"
#include "lib/distorch/step_predictor.h"
#include "lib/models/step_work.h"
#include "lib/serving/observer.h"
#include "lib/serving/phases.h"

namespace distorch {

struct LoadedComponent;

// Where a component's blocks lie and its units run: positions in StepForecasts::devices().
struct StepPlacement {
  DeviceId compute;
  c10::ScalarType dtype = c10::kFloat;  // it computes in
  std::vector<int64_t> bytes;           // of each block as it is stored
  std::vector<int> assignment, unit_devices;
};

// Thread-safe.
class StepForecasts {
 public:
  // `staging_bytes`: what weights may be fetched ahead into, on each device that computes. What is
  // pointed at outlives it.
  StepForecasts(const DeviceManager& devices, const LinkTable& links, int64_t staging_bytes,
                Observer* observer);

  // DeviceSpeeds::MeasureAll; else devices are measured when a model first needs it.
  absl::Status MeasureDevices() { return speeds_.MeasureAll(); }

  // Where blocks may lie: DeviceManager's devices, then the disk.
  const std::vector<DeviceId>& devices() const { return device_ids_; }
  int PositionOf(const DeviceId& device) const;  // which must be one of them

  // A component of the checkpoint `ckpt_name` that does `work` on `placement.compute`; only
  // compute, dtype and bytes of the placement are looked at. The status of a device that cannot be
  // measured.
  absl::StatusOr<StepModel> ModelOf(const std::string& ckpt_name, StepWork work,
                                    const StepPlacement& placement);

  // One evaluation of `component`, a diffusion model; measured once steps of its checkpoint were.
  PhaseForecast Evaluation(const LoadedComponent& component, const models::StepSize& size);

  // A step of `component`, a diffusion model, took `seconds`: tells the observer how far off the
  // prediction was, and corrects the checkpoint's coming ones.
  void Learn(const LoadedComponent& component, const models::StepSize& size, double seconds)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // nullopt: nothing of the checkpoint was measured.
  std::optional<double> FactorOf(const std::string& ckpt_name) const ABSL_LOCKS_EXCLUDED(mutex_);

  // What `component` does in an evaluation of that size; nullopt where nothing is known of it.
  std::optional<StepModel> ModelOf(const LoadedComponent& component, const models::StepSize& size);

  const DeviceManager& devices_;
  const std::vector<DeviceId> device_ids_;
  const LinkTable& links_;
  const int64_t staging_bytes_;
  Observer* const observer_;
  DeviceSpeeds speeds_;
  mutable absl::Mutex mutex_;
  std::map<std::string, double> factors_ ABSL_GUARDED_BY(mutex_);  // by ckpt_name
};

// The compute_factor with which `predict`, which grows with it, gives `seconds`: from 1/64 to 1024;
// `now` where even the least gives more (what is predicted to take the time is not computing).
double FactorFor(double seconds, double now, const std::function<double(double factor)>& predict);

}  // namespace distorch

#endif  // LIB_SERVING_FORECASTS_H_
