// Whether weights lie where the plan says.
#ifndef LIB_SERVING_PLACEMENT_CHECK_H_
#define LIB_SERVING_PLACEMENT_CHECK_H_

#include "absl/status/status.h"
#include "lib/distorch/ledger.h"
#include "lib/serving/load_spec.h"

namespace distorch {

// How far what a device stores may be from what was planned for it.
inline constexpr double kMaxPlanError = 0.01;

// Fills in what `placement`'s devices were measured to hold, and adds devices that hold what was
// not planned for them. The largest |measured - planned| / planned of a device.
double MeasurePlacement(const BytesByDevice& measured, ComponentPlacement* placement);

// INTERNAL with both numbers of each device when that was more than kMaxPlanError.
absl::Status CheckPlanError(double error, const ComponentPlacement& placement);

}  // namespace distorch

#endif  // LIB_SERVING_PLACEMENT_CHECK_H_
