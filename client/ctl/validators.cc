#include "client/ctl/validators.h"

#include <cmath>
#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace distorch::ctl {
namespace {

std::string Expected(const std::string& text, const char* allowed) {
  return absl::StrCat("'", text, "' is not ", allowed);
}

}  // namespace

CLI::Validator AboveZero() {
  auto check = [](const std::string& text) -> std::string {
    double value = 0;
    bool good = absl::SimpleAtod(text, &value) && std::isfinite(value) && value > 0;
    return good ? "" : Expected(text, "a number above 0");
  };
  return CLI::Validator(check, "");
}

CLI::Validator NotNegative() {
  auto check = [](const std::string& text) -> std::string {
    double value = 0;
    bool good = absl::SimpleAtod(text, &value) && std::isfinite(value) && value >= 0;
    return good ? "" : Expected(text, "a number of at least 0");
  };
  return CLI::Validator(check, "");
}

CLI::Validator Unsigned64() {
  auto check = [](const std::string& text) -> std::string {
    uint64_t value = 0;
    bool good = absl::SimpleAtoi(text, &value);
    return good ? "" : Expected(text, "a whole number from 0 to 18446744073709551615");
  };
  return CLI::Validator(check, "");
}

}  // namespace distorch::ctl
