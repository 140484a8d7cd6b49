// How a status crosses frames that only exceptions leave: LibTorch's, and the layers that are
// written as LibTorch's are.
#ifndef LIB_BASE_STATUS_ERROR_H_
#define LIB_BASE_STATUS_ERROR_H_

#include <exception>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace distorch {

// Thrown inside RunTorch (torch_status.h), which returns `status` again.
class StatusError final : public std::exception {
 public:
  explicit StatusError(absl::Status status)
      : status_(std::move(status)), message_(status_.message()) {}

  const absl::Status& status() const { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  absl::Status status_;
  std::string message_;
};

}  // namespace distorch

#endif  // LIB_BASE_STATUS_ERROR_H_
