// How long one evaluation of a model takes on a machine, for any placement of its blocks. Pure.
#ifndef LIB_DISTORCH_STEP_PREDICTOR_H_
#define LIB_DISTORCH_STEP_PREDICTOR_H_

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "lib/device/device_id.h"
#include "lib/device/device_speed.h"
#include "lib/device/links.h"
#include "lib/distorch/execution.h"
#include "lib/distorch/step_work.h"
#include "lib/distorch/stream_schedule.h"

namespace distorch {

// A model's evaluation and the machine.
struct StepModel {
  StepWork work;
  std::vector<int64_t> bytes;       // of each block as it is stored
  std::vector<DeviceId> devices;    // where blocks may lie
  std::vector<DeviceSpeed> speeds;  // parallel to devices; of no matter for those that hold only
  LinkTable links;
  int compute = 0;            // position in devices
  int64_t staging_bytes = 0;  // allowed on the compute device, as RingSize takes it
  // Computing takes so much longer than what a speed says: learned from steps that were measured.
  double compute_factor = 1;
};

// Where a model's units run, as positions in StepModel::devices, and what a step then takes.
struct UnitPlan {
  std::vector<int> devices;
  double step_seconds = 0;
};

// Devices are positions in the model's. Immutable.
class StepPredictor {
 public:
  explicit StepPredictor(StepModel model);

  const StepModel& model() const { return model_; }

  // Where each unit runs when the blocks lie as `assignment` says, one device a block. kAuto: the
  // compute device, the holders, or for each unit what is faster alone: what takes least in all.
  UnitPlan PlaceUnits(Execution execution, std::span<const int> assignment) const;

  // A step once the order of the weights is known: transfers of weights to the compute device
  // overlap with computing as in PredictStep; all others are taken to be waited for.
  double Seconds(std::span<const int> assignment, std::span<const int> unit_devices) const;

  // Of a block that runs on `device`, its weights being there.
  double ComputeSeconds(size_t block, int device) const {
    return compute_seconds_[static_cast<size_t>(device)][block];
  }
  double TransferSeconds(int from, int to, int64_t bytes) const;

 private:
  // As the streamer brings weights: over the direct link, through the host where that is faster,
  // and from a disk always.
  LinkPath FindPath(const DeviceId& from, const DeviceId& to);
  int AddLink(const DeviceId& from, const DeviceId& to);  // once; -1: there is none
  const LinkPath& PathOf(int from, int to) const {
    return paths_[static_cast<size_t>(from) * model_.devices.size() + static_cast<size_t>(to)];
  }
  // Of what a unit is given by others, when it and they run on these devices.
  double InputSeconds(const StepWork::Unit& unit, int device,
                      std::span<const int> unit_devices) const;
  // Of a unit alone, its inputs being there.
  double UnitSeconds(const UnitSpan& unit, int device, std::span<const int> assignment) const;
  // The devices that make UnitSeconds and what passes from unit to unit least in all.
  std::vector<int> FastestUnits(std::span<const int> assignment) const;

  const StepModel model_;
  std::vector<std::vector<double>> compute_seconds_;  // by device, then block
  std::map<std::pair<DeviceId, DeviceId>, int> link_positions_;
  std::vector<LinkSpeed> links_;
  std::vector<LinkPath> paths_;  // by [from, to]
};

}  // namespace distorch

#endif  // LIB_DISTORCH_STEP_PREDICTOR_H_
