// Schedulers: how a number of steps becomes a descending list of noise levels.
#ifndef LIB_SAMPLING_SCHEDULE_H_
#define LIB_SAMPLING_SCHEDULE_H_

#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/sampling/model_sampling.h"

namespace distorch::sampling {

// In the order clients list them.
std::span<const std::string_view> SchedulerNames();

// INVALID_ARGUMENT for an unknown name, naming the field `scheduler` and the allowed.
absl::Status CheckScheduler(std::string_view name);

// The noise levels of `steps` >= 1 steps: descending, with 0 at the end, so one more than there are
// steps. (ddim_uniform walks the table in whole strides and may give a few more; beta leaves
// repeated levels out and may give fewer.) Fails as CheckScheduler does.
absl::StatusOr<std::vector<float>> CalculateSigmas(const ModelSampling& sampling,
                                                   std::string_view scheduler, int steps);

}  // namespace distorch::sampling

#endif  // LIB_SAMPLING_SCHEDULE_H_
