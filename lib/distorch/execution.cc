#include "lib/distorch/execution.h"

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

constexpr Execution kExecutions[] = {Execution::kCompute, Execution::kHolder, Execution::kAuto};

}  // namespace

std::string_view ExecutionName(Execution execution) {
  switch (execution) {
    case Execution::kCompute:
      return "compute";
    case Execution::kHolder:
      return "holder";
    case Execution::kAuto:
      return "auto";
  }
  return "";
}

absl::StatusOr<Execution> ParseExecution(std::string_view text) {
  for (Execution execution : kExecutions) {
    if (text == ExecutionName(execution)) return execution;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is unknown; allowed: compute, holder, auto"));
}

bool CanRunUnits(const DeviceId& device) { return !device.is_cpu() && !device.is_disk(); }

std::vector<int> HoldersOf(std::span<const UnitSpan> units, std::span<const int64_t> bytes,
                           std::span<const int> assignment, std::span<const DeviceId> devices,
                           int compute) {
  std::vector<int> holders;
  for (const UnitSpan& unit : units) {
    std::vector<int64_t> held(devices.size());
    for (size_t i = unit.first; i < unit.end; ++i)
      held[static_cast<size_t>(assignment[i])] += bytes[i];
    size_t holder = static_cast<size_t>(compute);
    for (size_t device = 0; device < held.size(); ++device) {
      if (held[device] > held[holder]) holder = device;
    }
    holders.push_back(CanRunUnits(devices[holder]) ? static_cast<int>(holder) : compute);
  }
  return holders;
}

}  // namespace distorch
