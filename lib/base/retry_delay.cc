#include "lib/base/retry_delay.h"

#include <algorithm>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

constexpr char kPayload[] = "distorchd/retry_delay_ms";

}  // namespace

absl::Status RetryAfter(absl::Status status, absl::Duration delay) {
  const int64_t ms =
      absl::ToInt64Milliseconds(std::clamp(delay, absl::Milliseconds(500), absl::Hours(1)));
  status.SetPayload(kPayload, absl::Cord(absl::StrCat(ms)));
  return status;
}

std::optional<absl::Duration> RetryDelayOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayload);
  int64_t ms = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &ms)) return std::nullopt;
  return absl::Milliseconds(ms);
}

}  // namespace distorch
