// Which further devices help a sampling: what --parallel and a request's options.parallel mean.
#ifndef LIB_SERVING_DEVICE_TEAMS_H_
#define LIB_SERVING_DEVICE_TEAMS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/device/device_manager.h"
#include "lib/distorch/streamer.h"
#include "lib/pipeline/device_team.h"
#include "lib/serving/observer.h"
#include "lib/serving/phases.h"
#include "lib/serving/registry.h"

namespace distorch {

// "off"; "auto": every other accelerator that is idle, where that is measured to be faster; or
// devices separated by commas, which help whenever they are idle. Results are the same but for
// rounding, and the same bits whichever of the named devices were idle. Thread-safe.
class DeviceTeams {
 public:
  // What it is given must outlive it. `by_default`, checked, is for requests that say nothing.
  DeviceTeams(const DeviceManager& devices, std::string by_default, Streamer* streamer,
              PhaseRunner* runner, Observer* observer);

  // INVALID_ARGUMENT naming `field`, the piece that is wrong and what is allowed.
  static absl::Status Check(std::string_view field, const std::string& parallel,
                            const DeviceManager& devices);
  absl::Status Check(const std::string& parallel) const {
    return Check("options.parallel", parallel, devices_);
  }

  // Whether others may compute a share of a sampling; `parallel` is checked, or empty for the
  // default.
  bool MaySpread(const std::string& parallel) const;

  // For a sampling of `model`; `parallel` is checked, or empty for the default. Lives as long as
  // the model is pinned.
  absl::StatusOr<pipeline::Team> For(const LoadedComponent& model,
                                     const std::string& parallel) const;

 private:
  const DeviceManager& devices_;
  const std::string by_default_;
  Streamer* const streamer_;
  PhaseRunner* const runner_;
  Observer* const observer_;
};

}  // namespace distorch

#endif  // LIB_SERVING_DEVICE_TEAMS_H_
