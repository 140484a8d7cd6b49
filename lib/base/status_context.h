// Where an error happened, put before its message.
#ifndef LIB_BASE_STATUS_CONTEXT_H_
#define LIB_BASE_STATUS_CONTEXT_H_

#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace distorch {

// `status` with its message as "context: message"; OK stays OK.
inline absl::Status Within(std::string_view context, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

}  // namespace distorch

#endif  // LIB_BASE_STATUS_CONTEXT_H_
