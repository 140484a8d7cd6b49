#include "lib/base/torch_status.h"

#include <ATen/ATen.h>

#include <exception>
#include <new>
#include <string>

#include "lib/base/status_error.h"

namespace distorch {
namespace {

std::string FirstLine(std::string_view message) {
  return std::string(message.substr(0, message.find('\n')));
}

}  // namespace

absl::Status RunTorch(absl::FunctionRef<absl::Status()> body) {
  c10::InferenceMode no_autograd;
  try {
    return body();
  } catch (const StatusError& error) {
    return error.status();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(FirstLine(error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("cpu: out of host memory");
  } catch (const c10::Error& error) {
    const std::string line = FirstLine(error.what_without_backtrace());
    // LibTorch's CPU allocator reports exhaustion as a plain error.
    if (line.find("DefaultCPUAllocator") != std::string::npos) {
      return absl::ResourceExhaustedError(line);
    }
    return absl::InternalError(line);
  } catch (const std::exception& error) {
    return absl::InternalError(FirstLine(error.what()));
  }
}

}  // namespace distorch
