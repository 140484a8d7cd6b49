// Early return on a failed absl::Status or absl::StatusOr.
#ifndef LIB_BASE_STATUS_MACROS_H_
#define LIB_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Evaluates an absl::Status expression; returns it from the enclosing function unless it is OK.
#define RETURN_IF_ERROR(expr)                           \
  do {                                                  \
    if (absl::Status _status = (expr); !_status.ok()) { \
      return _status;                                   \
    }                                                   \
  } while (false)

// Evaluates an absl::StatusOr<T> expression; on success assigns the value to `lhs` (which may
// declare a variable), otherwise returns the status from the enclosing function.
#define ASSIGN_OR_RETURN(lhs, expr) \
  DISTORCH_ASSIGN_OR_RETURN_IMPL(DISTORCH_CONCAT(_status_or_, __LINE__), lhs, expr)

#define DISTORCH_CONCAT_INNER(a, b) a##b
#define DISTORCH_CONCAT(a, b) DISTORCH_CONCAT_INNER(a, b)
#define DISTORCH_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                                   \
  if (!tmp.ok()) return std::move(tmp).status();       \
  lhs = *std::move(tmp)

#endif  // LIB_BASE_STATUS_MACROS_H_
