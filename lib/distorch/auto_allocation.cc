#include "lib/distorch/auto_allocation.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"

namespace distorch {
namespace {

constexpr int kVirtualVramAmounts = 5;  // between what must leave compute and everything
constexpr size_t kMaxPermuted = 3;      // devices whose every order is tried
constexpr double kTinyShare = 0.0001;   // of the model: not worth a transfer

using Order = std::vector<int>;

// Every order of a few devices; of more, each as the first.
std::vector<Order> Orders(Order devices) {
  std::vector<Order> orders;
  if (devices.size() <= kMaxPermuted) {
    std::sort(devices.begin(), devices.end());
    do {
      orders.push_back(devices);
    } while (std::next_permutation(devices.begin(), devices.end()));
    return orders;
  }
  for (size_t i = 0; i < devices.size(); ++i) {
    orders.push_back(devices);
    std::rotate(devices.begin(), devices.begin() + 1, devices.end());
  }
  return orders;
}

class Search {
 public:
  Search(const StepPredictor& predictor, std::span<const Block> blocks, const AutoOptions& options)
      : predictor_(predictor),
        model_(predictor.model()),
        blocks_(blocks),
        options_(options),
        total_(std::accumulate(model_.bytes.begin(), model_.bytes.end(), int64_t{0})) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      const bool is_tiny =
          static_cast<double>(model_.bytes[i]) < kTinyShare * static_cast<double>(total_);
      stays_.push_back(is_tiny || model_.work.blocks[i].flops == 0);
    }
    for (int device = 0; device < static_cast<int>(model_.devices.size()); ++device) {
      if (device == model_.compute || Usable(device) == 0) continue;
      donors_.push_back(device);
      if (CanRunUnits(model_.devices[Index(device)])) accelerators_.push_back(device);
    }
    need_ = std::max<int64_t>(0, total_ - Usable(model_.compute));
  }

  AutoPlan Run() && {
    Assignment all(blocks_.size(), model_.compute);
    if (Fits(all)) {
      Consider("all on compute", std::move(all));
      return std::move(best_);
    }
    if (options_.leaves_room_to_stage) {
      int64_t& usable = options_.usable_bytes[Index(model_.compute)];
      usable -= std::min(RingSize(model_.staging_bytes, total_ - usable), usable / 4);
      need_ = std::max<int64_t>(0, total_ - usable);
    }
    TryNodeModes();
    for (const Order& order : Orders(donors_)) {
      for (const bool all : {false, true}) Consider("in pieces", FillInOrder(order, all));
    }
    TrySpread();
    if (options_.execution != Execution::kCompute) TryUnits();
    if (!best_.fits) Keep("nothing fits", FillInOrder(donors_, false), false);
    return std::move(best_);
  }

 private:
  using Assignment = std::vector<int>;

  static size_t Index(int device) { return static_cast<size_t>(device); }
  int64_t Usable(int device) const { return options_.usable_bytes[Index(device)]; }

  bool Fits(const Assignment& assignment) const {
    std::vector<int64_t> held(model_.devices.size());
    for (size_t i = 0; i < assignment.size(); ++i) held[Index(assignment[i])] += model_.bytes[i];
    for (size_t d = 0; d < held.size(); ++d) {
      if (held[d] > options_.usable_bytes[d]) return false;
    }
    return true;
  }

  void Consider(std::string_view way, Assignment assignment) {
    if (Fits(assignment)) Keep(way, std::move(assignment), true);
  }
  // The first of equals stays.
  void Keep(std::string_view way, Assignment assignment, bool fits) {
    UnitPlan units = predictor_.PlaceUnits(options_.execution, assignment);
    if (best_.fits && units.step_seconds >= best_.units.step_seconds) return;
    best_ = {std::move(assignment), std::move(units), way, fits};
  }

  // The node's modes, each device's memory being what is usable of it.
  void TryNodeModes() {
    std::vector<DeviceMemory> memory;
    for (size_t d = 0; d < model_.devices.size(); ++d) {
      if (options_.usable_bytes[d] > 0 || static_cast<int>(d) == model_.compute)
        memory.push_back({model_.devices[d], options_.usable_bytes[d]});
    }
    Allocation allocation;
    allocation.compute_device = model_.devices[Index(model_.compute)];
    for (const Order& order : Orders(donors_)) {
      allocation.mode = AllocationMode::kVirtualVram;
      allocation.entries.clear();
      for (int donor : order) allocation.entries.push_back({model_.devices[Index(donor)]});
      for (int i = 0; i < kVirtualVramAmounts; ++i) {
        allocation.virtual_vram_bytes = need_ + (total_ - need_) * i / (kVirtualVramAmounts - 1);
        ConsiderNodes("virtual VRAM", allocation, memory);
      }
    }
    allocation.mode = AllocationMode::kRatio;
    for (const Order& holders : {donors_, accelerators_}) {
      allocation.entries = {ShareOf(model_.compute)};
      for (int device : holders) allocation.entries.push_back(ShareOf(device));
      if (allocation.entries.size() > 1) ConsiderNodes("shares of free memory", allocation, memory);
    }
  }
  AllocationEntry ShareOf(int device) const {
    // A share of nothing would be none at all.
    return {model_.devices[Index(device)],
            static_cast<double>(std::max<int64_t>(1, Usable(device)))};
  }
  void ConsiderNodes(std::string_view way, const Allocation& allocation,
                     const std::vector<DeviceMemory>& memory) {
    const Plan plan =
        MakePlan(blocks_, allocation, memory, {.is_text_encoder = options_.is_text_encoder});
    std::vector<int> position;  // in the model's devices of the plan's
    for (const DeviceId& device : plan.devices) {
      position.push_back(
          static_cast<int>(std::find(model_.devices.begin(), model_.devices.end(), device) -
                           model_.devices.begin()));
    }
    Assignment assignment;
    for (int device : plan.assignment) assignment.push_back(position[Index(device)]);
    Consider(way, std::move(assignment));
  }

  // Block after block on compute, then on each donor, as there is room; `all`: also those that are
  // better off on compute.
  Assignment FillInOrder(const Order& donors, bool all) const {
    Order order = {model_.compute};
    order.insert(order.end(), donors.begin(), donors.end());
    Assignment assignment(blocks_.size(), model_.compute);
    std::vector<int64_t> left = options_.usable_bytes;
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (stays_[i] && !all) left[Index(model_.compute)] -= model_.bytes[i];
    }
    size_t at = 0;
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (stays_[i] && !all) continue;
      while (at < order.size() && left[Index(order[at])] < model_.bytes[i]) ++at;
      if (at == order.size()) break;
      assignment[i] = order[at];
      left[Index(order[at])] -= model_.bytes[i];
    }
    return assignment;
  }

  // How fast a donor's weights come to the compute device.
  double Rate(int donor) const {
    constexpr int64_t kSample = 16 << 20;
    const double seconds = predictor_.TransferSeconds(donor, model_.compute, kSample);
    return static_cast<double>(kSample) / std::max(seconds, 1e-9);
  }

  void TrySpread() {
    std::vector<Order> sets = {donors_, accelerators_};
    for (int donor : donors_) sets.push_back({donor});
    for (const Order& donors : sets) {
      if (donors.empty()) continue;
      for (const bool by_time : {false, true}) {
        Assignment assignment(blocks_.size(), model_.compute);
        Spread(need_, by_time, donors, &assignment);
        Consider("spread", std::move(assignment));
      }
    }
  }

  // Moves `bytes` in all away from compute, evenly over the step (by time, or by the model's
  // bytes), to the donors in proportion to their links' rates while they have room.
  void Spread(int64_t bytes, bool by_time, const Order& donors, Assignment* assignment) const {
    std::vector<double> measure(blocks_.size());
    for (size_t i = 0; i < blocks_.size(); ++i) {
      measure[i] = by_time ? predictor_.ComputeSeconds(i, model_.compute)
                           : static_cast<double>(model_.bytes[i]);
    }
    const double whole = std::max(std::accumulate(measure.begin(), measure.end(), 0.0), 1e-30);
    std::vector<int64_t> left = options_.usable_bytes;
    std::vector<double> charged(model_.devices.size());
    double reached = 0;
    int64_t moved = 0;
    // The second time takes what the first could not: large blocks that met no room in their turn.
    for (const bool catch_up : {false, true}) {
      for (size_t i = blocks_.size(); i-- > 0 && moved < bytes;) {
        reached += measure[i];
        if (stays_[i] || (*assignment)[i] != model_.compute) continue;
        const double due = static_cast<double>(bytes) * reached / whole;
        if (!catch_up &&
            static_cast<double>(moved) + static_cast<double>(model_.bytes[i]) / 2 > due)
          continue;
        const int donor = LeastCharged(donors, model_.bytes[i], left, charged);
        if (donor < 0) continue;
        (*assignment)[i] = donor;
        left[Index(donor)] -= model_.bytes[i];
        charged[Index(donor)] += static_cast<double>(model_.bytes[i]) / Rate(donor);
        moved += model_.bytes[i];
      }
    }
  }
  int LeastCharged(const Order& donors, int64_t bytes, const std::vector<int64_t>& left,
                   const std::vector<double>& charged) const {
    int best = -1;
    double least = 0;
    for (int donor : donors) {
      if (left[Index(donor)] < bytes) continue;
      const double after = charged[Index(donor)] + static_cast<double>(bytes) / Rate(donor);
      if (best < 0 || after < least) {
        best = donor;
        least = after;
      }
    }
    return best;
  }

  // Whole units one after another on the accelerators, in every order; what they cannot hold
  // together is spread over the cpu first.
  void TryUnits() {
    Order runners = accelerators_;
    runners.push_back(model_.compute);
    int64_t room = 0;
    for (int runner : runners) room += Usable(runner);
    for (const Order& order : Orders(runners)) {
      // Units leave gaps where they do not fit whole.
      for (const double slack : {1.0, 0.97, 0.9}) {
        Assignment assignment(blocks_.size(), model_.compute);
        const int64_t beyond = total_ - static_cast<int64_t>(slack * static_cast<double>(room));
        if (beyond > 0) Spread(beyond, false, HoldersOnly(), &assignment);
        FillWithUnits(order, &assignment);
        Consider("whole units", std::move(assignment));
      }
    }
  }
  Order HoldersOnly() const {
    Order holders;
    std::set_difference(donors_.begin(), donors_.end(), accelerators_.begin(), accelerators_.end(),
                        std::back_inserter(holders));
    return holders;
  }
  void FillWithUnits(const Order& order, Assignment* assignment) const {
    std::vector<int64_t> left = options_.usable_bytes;
    std::vector<bool> in_unit(blocks_.size());
    for (const StepWork::Unit& unit : model_.work.units) {
      for (size_t i = unit.blocks.first; i < unit.blocks.end; ++i) in_unit[i] = true;
    }
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (!in_unit[i] && (*assignment)[i] == model_.compute)
        left[Index(model_.compute)] -= model_.bytes[i];
    }
    size_t at = 0;
    for (const StepWork::Unit& unit : model_.work.units) {
      int64_t bytes = 0;
      for (size_t i = unit.blocks.first; i < unit.blocks.end; ++i) {
        if ((*assignment)[i] == model_.compute) bytes += model_.bytes[i];
      }
      while (at < order.size() && left[Index(order[at])] < bytes) ++at;
      if (at == order.size()) return;
      left[Index(order[at])] -= bytes;
      for (size_t i = unit.blocks.first; i < unit.blocks.end; ++i) {
        if ((*assignment)[i] == model_.compute) (*assignment)[i] = order[at];
      }
    }
  }

  const StepPredictor& predictor_;
  const StepModel& model_;
  const std::span<const Block> blocks_;
  AutoOptions options_;
  const int64_t total_;
  std::vector<bool> stays_;  // better off on compute
  int64_t need_ = 0;         // what compute cannot hold
  Order donors_, accelerators_;
  AutoPlan best_;
};

}  // namespace

AutoPlan AllocateAutomatically(const StepPredictor& predictor, std::span<const Block> blocks,
                               const AutoOptions& options) {
  return Search(predictor, blocks, options).Run();
}

std::string DescribeSplit(std::span<const int> assignment, const StepModel& model) {
  constexpr double kGib = 1 << 30;
  std::vector<int64_t> held(model.devices.size());
  for (size_t i = 0; i < assignment.size(); ++i)
    held[static_cast<size_t>(assignment[i])] += model.bytes[i];
  std::string text;
  for (size_t d = 0; d < held.size(); ++d) {
    if (held[d] == 0) continue;
    absl::StrAppendFormat(&text, "%s%s,%.2fgb", text.empty() ? "" : ";",
                          model.devices[d].ToString(), static_cast<double>(held[d]) / kGib);
  }
  return text;
}

}  // namespace distorch
