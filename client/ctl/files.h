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
// "out-preview-007.png": previews are PNG whatever the image is.
std::string PreviewName(const std::string& output, int step);

// The image_format that a file of this name holds: "png", "jpeg" (of .jpg and .jpeg) or "webp".
// INVALID_ARGUMENT for any other extension.
absl::StatusOr<std::string> FormatOf(const std::string& output);
// ".png", ".jpg" or ".webp".
std::string ExtensionOf(const std::string& image_format);
// INVALID_ARGUMENT unless the name's extension is that of `image_format`, in a folder that exists:
// to be asked before minutes of work.
absl::Status CheckOutput(const std::string& output, const std::string& image_format);

// Errors name the file: NOT_FOUND, PERMISSION_DENIED, or what else the system says.
absl::StatusOr<std::string> ReadFile(const std::string& path);
// Replaces a file of that name.
absl::Status WriteFile(const std::string& path, std::string_view bytes);

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_FILES_H_
