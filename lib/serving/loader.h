// Loads checkpoints: the steps of "The life of a LoadCheckpoint" (architecture), one checkpoint at
// a time.
#ifndef LIB_SERVING_LOADER_H_
#define LIB_SERVING_LOADER_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/device/device_manager.h"
#include "lib/distorch/ledger.h"
#include "lib/distorch/streamer.h"
#include "lib/distorch/transfer_meter.h"
#include "lib/serving/checkpoint_folders.h"
#include "lib/serving/load_plan.h"
#include "lib/serving/load_spec.h"
#include "lib/serving/observer.h"
#include "lib/serving/registry.h"
#include "lib/serving/room_maker.h"

namespace distorch {

// What it is given must outlive it. Plan and ListCheckpoints may be called from any thread, Load
// from one at a time.
class Loader {
 public:
  using Progress = std::function<void(const LoadProgress&)>;

  // `execution` is that of loads that ask for none.
  Loader(const ModelFolders& folders, const DeviceManager& devices, Ledger* ledger,
         Registry* registry, TransferMeter* meter, Streamer* streamer, Observer* observer,
         StepForecasts* forecasts, const RoomMaker* room_maker, Execution execution);

  std::vector<CheckpointInfo> ListCheckpoints() const;

  // Reads headers only. `fits` counts what eject_models would free.
  absl::StatusOr<CheckpointPlan> Plan(const LoadSpec& spec) const;

  // Loads the checkpoint's components that the handles, all of one load and checkpoint, come from,
  // under the names they had (StoredHandle::root). FAILED_PRECONDITION when the checkpoint has
  // changed since, or the devices and settings give it other names; ejects nothing.
  absl::Status LoadRoots(const std::vector<StoredHandle>& stored, const CancelTokenPtr& cancel,
                         const Progress& progress);

  // Loads what of the checkpoint's components is not loaded with these fields yet, be it under its
  // own handle or below an adapter's, and returns all handles. What reads weights from a file that
  // was written to since is loaded anew, too. After an error nothing of it stays
  // allocated; what eject_models evicted stays evicted.
  absl::StatusOr<LoadResult> Load(const LoadSpec& spec, const CancelTokenPtr& cancel,
                                  const Progress& progress);

 private:
  class PhaseTimer;

  // `stored`: what was decided for them before is decided again.
  SplitContext ContextOf(const LoadSpec& spec, std::vector<StoredHandle> stored = {}) const;
  absl::StatusOr<LoadResult> LoadFile(const LoadSpec& spec, const std::vector<StoredHandle>& stored,
                                      const CancelTokenPtr& cancel, const Progress& progress);
  using Components = std::vector<std::shared_ptr<const LoadedComponent>>;
  // `living` parallels `handles`: components whose weights are there still; else null.
  absl::Status LoadMissing(LoadPlan plan, const std::vector<std::string>& handles,
                           const Components& living, const CancelTokenPtr& cancel,
                           const Progress& progress, PhaseTimer& timer);
  absl::StatusOr<std::shared_ptr<LoadedComponent>> Place(
      const LoadPlan& plan, ComponentLoadPlan component, const std::string& handle,
      const CancelToken& cancel, const std::function<void(int64_t)>& on_bytes);

  const ModelFolders& folders_;
  const DeviceManager& devices_;
  Ledger* const ledger_;
  Registry* const registry_;
  TransferMeter* const meter_;
  Streamer* const streamer_;
  Observer* const observer_;
  StepForecasts* const forecasts_;
  const RoomMaker* const room_maker_;
  const Execution execution_;
};

// "model-0123456789abcdef": names a component by its content, so that equal loads have equal
// handles on every replica.
absl::StatusOr<std::string> ComponentHandle(ComponentKind kind, std::string_view fingerprint,
                                            std::string_view identity);

// The handle of a clip component with that base handle that stops at a layer.
absl::StatusOr<std::string> ClipSkipHandle(std::string_view base_handle, int stop_at_layer);

}  // namespace distorch

#endif  // LIB_SERVING_LOADER_H_
