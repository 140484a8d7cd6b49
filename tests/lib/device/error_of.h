// LibTorch's errors, as the devices' tests expect them.
#ifndef TESTS_LIB_DEVICE_ERROR_OF_H_
#define TESTS_LIB_DEVICE_ERROR_OF_H_

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace distorch {

// The first line of the error of type Error that `body` must throw.
template <typename Error>
std::string ErrorOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string message = error.what_without_backtrace();
    return message.substr(0, message.find('\n'));
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

}  // namespace distorch

#endif  // TESTS_LIB_DEVICE_ERROR_OF_H_
