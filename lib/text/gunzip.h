// The compressed data files that are part of the program.
#ifndef LIB_TEXT_GUNZIP_H_
#define LIB_TEXT_GUNZIP_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace distorch::text {

// At least the first `count` lines of a gzip file, or all where it has fewer. For files that are
// trusted: nothing but `count` bounds the result. INVALID_ARGUMENT when it is no whole gzip file.
absl::StatusOr<std::string> GunzipLines(std::string_view gz, int64_t count);

}  // namespace distorch::text

#endif  // LIB_TEXT_GUNZIP_H_
