#include "tests/lib/distorch/plan_checker.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

// The most that `device` may hold in kExact mode when it is not the compute device.
double ExactLimit(const DeviceMemory& device, double model_bytes, const Allocation& allocation) {
  double shares = 0;
  bool has_wildcard = false;
  for (const AllocationEntry& entry : allocation.entries) {
    shares += entry.amount;
    has_wildcard |= entry.wildcard;
  }
  if (allocation.mode == AllocationMode::kBytes && !has_wildcard && device.device.is_cpu())
    return model_bytes;
  for (const AllocationEntry& entry : allocation.entries) {
    if (entry.device != device.device) continue;
    switch (allocation.mode) {
      case AllocationMode::kVirtualVram:
        return std::min(static_cast<double>(allocation.virtual_vram_bytes),
                        static_cast<double>(device.total_bytes));
      case AllocationMode::kBytes:
        return entry.wildcard ? model_bytes : entry.amount;
      case AllocationMode::kRatio:
        return entry.amount / shares * model_bytes;
      case AllocationMode::kFraction:
        return entry.amount * static_cast<double>(device.total_bytes);
    }
  }
  return 0;
}

std::string CheckTotals(std::span<const Block> blocks, const Plan& plan) {
  std::vector<int64_t> bytes(plan.devices.size());
  std::vector<int> count(plan.devices.size());
  if (plan.assignment.size() != blocks.size()) return "not one device for each block";
  for (size_t i = 0; i < blocks.size(); ++i) {
    const int device = plan.assignment[i];
    if (device < 0 || device >= static_cast<int>(plan.devices.size())) {
      return absl::StrCat("block ", i, " is on no known device");
    }
    bytes[device] += blocks[i].bytes;
    ++count[device];
  }
  if (bytes != plan.bytes) return "bytes per device are not the sum of the blocks'";
  if (count != plan.block_count) return "block counts are not those of the assignment";
  return "";
}

}  // namespace

std::string PlanViolation(std::span<const Block> blocks, const Allocation& allocation,
                          const std::vector<DeviceMemory>& devices, const PlannerOptions& options,
                          const Plan& plan) {
  std::vector<DeviceId> sorted;
  for (const DeviceMemory& device : devices) sorted.push_back(device.device);
  std::sort(sorted.begin(), sorted.end());
  if (plan.devices != sorted) return "devices are not the table's, sorted";
  if (std::string violation = CheckTotals(blocks, plan); !violation.empty()) return violation;

  double model_bytes = 0;
  for (const Block& block : blocks) model_bytes += static_cast<double>(block.bytes);
  double donated = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (sorted[i] == allocation.compute_device) continue;
    const DeviceMemory& device =
        *std::find_if(devices.begin(), devices.end(),
                      [&](const auto& known) { return known.device == sorted[i]; });
    // Rounding to 4 decimals of the device's memory moves a quota by half of the last one at most.
    const double slack =
        options.mode == PlannerMode::kReference ? 0.00005 * device.total_bytes + 1 : 1e-6;
    const double limit = ExactLimit(device, model_bytes, allocation);
    if (limit == 0 && plan.block_count[i] > 0)
      return absl::StrCat(sorted[i].ToString(), " was offered nothing");
    if (static_cast<double>(plan.bytes[i]) > limit * (1 + 1e-12) + slack) {
      return absl::StrCat(sorted[i].ToString(), " holds ", plan.bytes[i],
                          " bytes, more than its quota of ", limit);
    }
    donated += static_cast<double>(plan.bytes[i]);
  }
  if (allocation.mode == AllocationMode::kVirtualVram && options.mode == PlannerMode::kExact &&
      donated > static_cast<double>(allocation.virtual_vram_bytes)) {
    return "the donors hold more than the virtual VRAM";
  }

  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::string name = absl::AsciiStrToLower(blocks[i].name);
    const bool embedding = options.is_text_encoder &&
                           (absl::StrContains(name, "embed") || absl::StrContains(name, "wte") ||
                            absl::StrContains(name, "wpe"));
    const bool tiny = static_cast<double>(blocks[i].bytes) < 0.0001 * model_bytes;
    if ((embedding || tiny || !blocks[i].has_bias_member) &&
        plan.devices[plan.assignment[i]] != allocation.compute_device) {
      return absl::StrCat("block ", i, " must be on the compute device");
    }
  }
  return "";
}

}  // namespace distorch
