#include "lib/serving/placement_check.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace distorch {

double MeasurePlacement(const BytesByDevice& measured, ComponentPlacement* placement) {
  std::vector<DeviceBytes>& devices = placement->devices;
  for (DeviceBytes& device : devices) device.measured_bytes = 0;
  for (const auto& [id, bytes] : measured) {
    const std::string name = id.ToString();
    const auto planned =
        std::find_if(devices.begin(), devices.end(),
                     [&](const DeviceBytes& device) { return device.device == name; });
    if (planned != devices.end()) {
      planned->measured_bytes = bytes;
    } else if (bytes > 0) {
      devices.push_back({name, 0, bytes, 0});
    }
  }
  double worst = 0;
  for (const DeviceBytes& device : devices) {
    const auto difference = static_cast<double>(device.measured_bytes - device.planned_bytes);
    const auto planned = static_cast<double>(std::max<int64_t>(1, device.planned_bytes));
    worst = std::max(worst, std::abs(difference) / planned);
  }
  return worst;
}

absl::Status CheckPlanError(double error, const ComponentPlacement& placement) {
  if (error <= kMaxPlanError) return absl::OkStatus();
  std::string table;
  for (const DeviceBytes& device : placement.devices) {
    absl::StrAppend(&table, "; ", device.device, ": planned ", device.planned_bytes, ", measured ",
                    device.measured_bytes, " bytes");
  }
  return absl::InternalError(absl::StrCat(placement.component, " is not placed as planned", table));
}

}  // namespace distorch
