// The one place where LibTorch's exceptions become absl::Status.
#ifndef LIB_BASE_TORCH_STATUS_H_
#define LIB_BASE_TORCH_STATUS_H_

#include <type_traits>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace distorch {

// Runs `body` without autograd and returns its status. A LibTorch out-of-memory error becomes
// RESOURCE_EXHAUSTED, any other exception INTERNAL; the message is the exception's first line,
// without a stack trace.
absl::Status RunTorch(absl::FunctionRef<absl::Status()> body);

// The same for a body that yields a value: T body() or absl::StatusOr<T> body().
template <typename T, typename Body>
absl::StatusOr<T> RunTorchOr(Body&& body) {
  absl::StatusOr<T> result = absl::UnknownError("not run");
  absl::Status status = RunTorch([&]() -> absl::Status {
    result = body();
    return result.status();
  });
  if (!status.ok()) return status;
  return result;
}

}  // namespace distorch

#endif  // LIB_BASE_TORCH_STATUS_H_
