// Checks of flag values whose messages say what is allowed.
#ifndef CLIENT_CTL_VALIDATORS_H_
#define CLIENT_CTL_VALIDATORS_H_

#include <CLI/CLI.hpp>

namespace distorch::ctl {

CLI::Validator AboveZero();
CLI::Validator NotNegative();
// A decimal number that fits 64 bits without a sign. CLI11 itself takes -1 for 2^64 - 1 and 010
// for 8.
CLI::Validator Unsigned64();

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_VALIDATORS_H_
