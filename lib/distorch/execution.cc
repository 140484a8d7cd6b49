#include "lib/distorch/execution.h"

#include <map>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

constexpr Execution kExecutions[] = {Execution::kCompute, Execution::kHolder};

// What is stored on a CPU, or on no device at all, computes slower than it travels.
bool IsAccelerator(const DeviceId& device) { return !device.is_cpu() && !device.is_disk(); }

}  // namespace

std::string_view ExecutionName(Execution execution) {
  switch (execution) {
    case Execution::kCompute:
      return "compute";
    case Execution::kHolder:
      return "holder";
  }
  return "";
}

absl::StatusOr<Execution> ParseExecution(std::string_view text) {
  for (Execution execution : kExecutions) {
    if (text == ExecutionName(execution)) return execution;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is unknown; allowed: compute, holder"));
}

std::vector<DeviceId> HoldersOf(std::span<const UnitSpan> units, std::span<const int64_t> bytes,
                                std::span<const DeviceId> device_of, const DeviceId& compute) {
  std::vector<DeviceId> holders;
  for (const UnitSpan& unit : units) {
    std::map<DeviceId, int64_t> held;
    for (size_t i = unit.first; i < unit.end; ++i) held[device_of[i]] += bytes[i];
    DeviceId holder = compute;
    int64_t most = held[compute];
    for (const auto& [device, held_bytes] : held) {
      if (held_bytes <= most) continue;
      holder = device;
      most = held_bytes;
    }
    holders.push_back(IsAccelerator(holder) ? holder : compute);
  }
  return holders;
}

}  // namespace distorch
