// A loaded diffusion model that computes on further devices.
#ifndef LIB_SERVING_REPLICAS_H_
#define LIB_SERVING_REPLICAS_H_

#include <c10/core/Device.h>

#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/device/device_manager.h"
#include "lib/distorch/streamer.h"
#include "lib/models/diffusion_model.h"
#include "lib/pipeline/device_team.h"

namespace distorch {

struct LoadedComponent;

// Thread-safe.
class Replicas {
 public:
  // The model of `loaded`, whose replicas these are, computing on `device` in the same type. It
  // shares the weights and has none of its own: `streamer` brings those that are elsewhere. Lives
  // as long as this does; `streamer` and `devices` outlive it.
  absl::StatusOr<const models::DiffusionModel*> On(const LoadedComponent& loaded,
                                                   const c10::Device& device, Streamer* streamer,
                                                   const DeviceManager& devices)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // What was measured with all of them.
  const std::shared_ptr<pipeline::TeamTimes>& times() const { return times_; }

 private:
  const std::shared_ptr<pipeline::TeamTimes> times_ = std::make_shared<pipeline::TeamTimes>();
  absl::Mutex mutex_;
  std::map<c10::DeviceIndex, std::unique_ptr<models::DiffusionModel>> by_device_
      ABSL_GUARDED_BY(mutex_);  // −1: the CPU
};

}  // namespace distorch

#endif  // LIB_SERVING_REPLICAS_H_
