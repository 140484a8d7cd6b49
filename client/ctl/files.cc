#include "client/ctl/files.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

namespace fs = std::filesystem;

// The name with `suffix` before its extension.
std::string WithSuffix(const std::string& output, const std::string& suffix) {
  fs::path path(output);
  return (path.parent_path() / (path.stem().string() + suffix + path.extension().string()))
      .string();
}

}  // namespace

std::vector<std::string> ImageNames(const std::string& output, int count) {
  if (count == 1) return {output};
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(WithSuffix(output, absl::StrCat("-", i)));
  return names;
}

std::string PreviewName(const std::string& output, int step) {
  const fs::path as_png = fs::path(output).replace_extension(".png");
  return WithSuffix(as_png.string(), absl::StrFormat("-preview-%03d", step));
}

absl::StatusOr<std::string> FormatOf(const std::string& output) {
  const std::string extension = absl::AsciiStrToLower(fs::path(output).extension().string());
  if (extension == ".jpg") return "jpeg";
  if (extension == ".png" || extension == ".jpeg" || extension == ".webp")
    return extension.substr(1);
  return absl::InvalidArgumentError(
      absl::StrCat("--output '", output, "': the name must end with .png, .jpg, .jpeg or .webp"));
}

std::string ExtensionOf(const std::string& image_format) {
  return image_format == "jpeg" ? ".jpg" : absl::StrCat(".", image_format);
}

absl::Status CheckOutput(const std::string& output, const std::string& image_format) {
  ASSIGN_OR_RETURN(const std::string format, FormatOf(output));
  if (format != image_format) {
    return absl::InvalidArgumentError(absl::StrCat("--output '", output, "': not the name of a ",
                                                   image_format, " image, which ends with ",
                                                   ExtensionOf(image_format)));
  }
  const fs::path path(output);
  std::error_code error;
  fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--output '", output, "': no folder '", folder.string(), "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' is a folder"));
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read '", path, "'"));
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read '", path, "'"));
  return bytes;
}

absl::Status WriteFile(const std::string& path, std::string_view bytes) {
  errno = 0;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", path, "'"));
  return absl::OkStatus();
}

}  // namespace distorch::ctl
