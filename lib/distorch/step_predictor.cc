#include "lib/distorch/step_predictor.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace distorch {

StepPredictor::StepPredictor(StepModel model) : model_(std::move(model)) {
  for (const DeviceId& from : model_.devices) {
    for (const DeviceId& to : model_.devices) paths_.push_back(FindPath(from, to));
  }
  for (const DeviceSpeed& speed : model_.speeds) {
    std::vector<double>& seconds = compute_seconds_.emplace_back();
    for (size_t i = 0; i < model_.bytes.size(); ++i) {
      const StepWork::Block& work = model_.work.blocks[i];
      // A look-up reads only its rows.
      const double weights = work.flops > 0 ? static_cast<double>(model_.bytes[i]) : 0;
      seconds.push_back(model_.compute_factor *
                        speed.Seconds(work.flops, work.activation_bytes + weights));
    }
  }
}

int StepPredictor::AddLink(const DeviceId& from, const DeviceId& to) {
  const LinkSpeed* const speed = model_.links.Find(from, to);
  if (speed == nullptr) return -1;
  const auto [position, is_new] =
      link_positions_.try_emplace({from, to}, static_cast<int>(links_.size()));
  if (is_new) links_.push_back(*speed);
  return position->second;
}

LinkPath StepPredictor::FindPath(const DeviceId& from, const DeviceId& to) {
  constexpr int64_t kTypicalBytes = 8 << 20;
  const DeviceId host;
  if (from == to || to.is_disk()) return {};
  if (from.is_disk() && !to.is_cpu()) return {AddLink(from, host), AddLink(host, to)};
  const LinkSpeed* const direct = model_.links.Find(from, to);
  const LinkSpeed* const up = model_.links.Find(from, host);
  const LinkSpeed* const down = model_.links.Find(host, to);
  const bool through_host =
      direct != nullptr && up != nullptr && down != nullptr &&
      up->Seconds(kTypicalBytes) + down->Seconds(kTypicalBytes) < direct->Seconds(kTypicalBytes);
  if (through_host) return {AddLink(from, host), AddLink(host, to)};
  return {AddLink(from, to), -1};
}

double StepPredictor::TransferSeconds(int from, int to, int64_t bytes) const {
  const LinkPath& path = PathOf(from, to);
  double seconds = 0;
  for (const int link : {path.first, path.second}) {
    if (link >= 0) seconds += links_[static_cast<size_t>(link)].Seconds(bytes);
  }
  return seconds;
}

double StepPredictor::InputSeconds(const StepWork::Unit& unit, int device,
                                   std::span<const int> unit_devices) const {
  double seconds = 0;
  for (const StepWork::Input& input : unit.inputs) {
    const int from =
        input.unit < 0 ? model_.compute : unit_devices[static_cast<size_t>(input.unit)];
    seconds += TransferSeconds(from, device, input.bytes);
  }
  return seconds;
}

double StepPredictor::UnitSeconds(const UnitSpan& unit, int device,
                                  std::span<const int> assignment) const {
  double computing = 0, fetching = 0;
  for (size_t i = unit.first; i < unit.end; ++i) {
    computing += ComputeSeconds(i, device);
    fetching += TransferSeconds(assignment[i], device, model_.bytes[i]);
  }
  return device == model_.compute ? std::max(computing, fetching) : computing + fetching;
}

std::vector<int> StepPredictor::FastestUnits(std::span<const int> assignment) const {
  const std::vector<StepWork::Unit>& units = model_.work.units;
  std::vector<int> candidates = {model_.compute};
  for (int device = 0; device < static_cast<int>(model_.devices.size()); ++device) {
    if (device != model_.compute && CanRunUnits(model_.devices[static_cast<size_t>(device)]) &&
        std::find(assignment.begin(), assignment.end(), device) != assignment.end()) {
      candidates.push_back(device);
    }
  }
  // The shortest path over units and their devices. What flows from unit to unit is the first of
  // their inputs; what else they are given, skip connections, is left to the comparison of results.
  const size_t count = candidates.size();
  std::vector<double> seconds(count, std::numeric_limits<double>::infinity());
  seconds[0] = 0;
  std::vector<std::vector<size_t>> before(units.size(), std::vector<size_t>(count));
  for (size_t u = 0; u < units.size(); ++u) {
    std::vector<double> next(count);
    for (size_t to = 0; to < count; ++to) {
      double best = std::numeric_limits<double>::infinity();
      for (size_t from = 0; from < count; ++from) {
        const int64_t bytes = units[u].inputs.empty() ? 0 : units[u].inputs[0].bytes;
        const double through =
            seconds[from] + TransferSeconds(candidates[from], candidates[to], bytes);
        if (through < best) {
          best = through;
          before[u][to] = from;
        }
      }
      next[to] = best + UnitSeconds(units[u].blocks, candidates[to], assignment);
    }
    seconds = std::move(next);
  }
  size_t last = 0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t from = 0; from < count; ++from) {
    const double total =
        seconds[from] + TransferSeconds(candidates[from], model_.compute, model_.work.output_bytes);
    if (total < least) {
      least = total;
      last = from;
    }
  }
  std::vector<int> devices(units.size());
  for (size_t u = units.size(); u-- > 0;) {
    devices[u] = candidates[last];
    last = before[u][last];
  }
  return devices;
}

UnitPlan StepPredictor::PlaceUnits(Execution execution, std::span<const int> assignment) const {
  std::vector<std::vector<int>> candidates;
  if (execution != Execution::kHolder)
    candidates.emplace_back(model_.work.units.size(), model_.compute);
  if (execution != Execution::kCompute) {
    std::vector<UnitSpan> units;
    for (const StepWork::Unit& unit : model_.work.units) units.push_back(unit.blocks);
    candidates.push_back(
        HoldersOf(units, model_.bytes, assignment, model_.devices, model_.compute));
  }
  if (execution == Execution::kAuto) candidates.push_back(FastestUnits(assignment));
  UnitPlan best;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const auto before = candidates.begin() + static_cast<std::ptrdiff_t>(i);
    if (std::find(candidates.begin(), before, candidates[i]) != before) continue;
    const double seconds = Seconds(assignment, candidates[i]);
    if (i == 0 || seconds < best.step_seconds) best = {candidates[i], seconds};
  }
  return best;
}

double StepPredictor::Seconds(std::span<const int> assignment,
                              std::span<const int> unit_devices) const {
  std::vector<StreamUnit> stream;
  stream.reserve(assignment.size() + 1);
  size_t unit = 0;  // the first that does not end before the block
  int64_t elsewhere = 0;
  for (size_t i = 0; i < assignment.size(); ++i) {
    const std::vector<StepWork::Unit>& units = model_.work.units;
    while (unit < units.size() && units[unit].blocks.end <= i) ++unit;
    const bool in_unit = unit < units.size() && units[unit].blocks.first <= i;
    const int device = in_unit ? unit_devices[unit] : model_.compute;
    StreamUnit& step = stream.emplace_back();
    step.compute_seconds = ComputeSeconds(i, device);
    if (in_unit && units[unit].blocks.first == i)
      step.compute_seconds += InputSeconds(units[unit], device, unit_devices);
    if (device == model_.compute) {
      const LinkPath& path = PathOf(assignment[i], device);
      if (assignment[i] != device) elsewhere += model_.bytes[i];
      if (path.first >= 0 || path.second >= 0) step.bytes = model_.bytes[i];
      step.link = path.first >= 0 ? path.first : path.second;
      step.second_link = path.first >= 0 ? path.second : -1;
    } else {
      step.compute_seconds += TransferSeconds(assignment[i], device, model_.bytes[i]);
    }
  }
  if (!unit_devices.empty()) {
    stream.emplace_back().compute_seconds =
        TransferSeconds(unit_devices.back(), model_.compute, model_.work.output_bytes);
  }
  return PredictStep(stream, links_, RingSize(model_.staging_bytes, elsewhere)).step_seconds;
}

}  // namespace distorch
