// When to try again, in the payload of a status; server/ sends it as google.rpc.RetryInfo.
#ifndef LIB_BASE_RETRY_DELAY_H_
#define LIB_BASE_RETRY_DELAY_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace distorch {

// `status`, not OK, with the advice to try again after `delay`, at least half a second.
absl::Status RetryAfter(absl::Status status, absl::Duration delay);

std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

}  // namespace distorch

#endif  // LIB_BASE_RETRY_DELAY_H_
