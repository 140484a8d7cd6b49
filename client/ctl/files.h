// Image files: their names and their bytes.
#ifndef CLIENT_CTL_FILES_H_
#define CLIENT_CTL_FILES_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace distorch::ctl {

// One name an image: "out.png"; of several, "out-0.png", "out-1.png", …
std::vector<std::string> ImageNames(const std::string& output, int count);
// "out-preview-007.png".
std::string PreviewName(const std::string& output, int step);

// INVALID_ARGUMENT unless the name ends with .png in a folder that exists: to be asked before
// minutes of work.
absl::Status CheckOutput(const std::string& output);

// Errors name the file: NOT_FOUND, PERMISSION_DENIED, or what else the system says.
absl::StatusOr<std::string> ReadFile(const std::string& path);
// Replaces a file of that name.
absl::Status WriteFile(const std::string& path, std::string_view bytes);

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_FILES_H_
