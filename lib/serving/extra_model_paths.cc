#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/mapped_file.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/serving/checkpoint_folders.h"
#include "yaml-cpp/yaml.h"

namespace distorch {
namespace {

namespace fs = std::filesystem;

bool IsNameCharacter(char c) { return absl::ascii_isalnum(c) || c == '_'; }

// The variable that `text`, which begins with '$', names; "" when it names none. `length`: how much
// of `text` says so.
std::string VariableName(std::string_view text, std::size_t& length) {
  const bool braces = text.substr(1, 1) == "{";
  const std::size_t begin = braces ? 2 : 1;
  std::size_t end = begin;
  while (end < text.size() && IsNameCharacter(text[end])) ++end;
  const bool closed = !braces || text.substr(end, 1) == "}";
  length = closed && braces ? end + 1 : end;
  return closed ? std::string(text.substr(begin, end - begin)) : "";
}

std::string ExpandVariables(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    std::size_t length = std::min(text.find('$'), text.size());
    out += text.substr(0, length);
    text.remove_prefix(length);
    if (text.empty()) break;
    const std::string name = VariableName(text, length);
    const char* value = name.empty() ? nullptr : std::getenv(name.c_str());
    out += value != nullptr ? std::string_view(value) : text.substr(0, length);
    text.remove_prefix(length);
  }
  return out;
}

fs::path Expand(std::string_view path) {
  const char* home = std::getenv("HOME");
  const bool in_home = home != nullptr && (path == "~" || path.substr(0, 2) == "~/");
  return in_home ? ExpandVariables(absl::StrCat(home, path.substr(1))) : ExpandVariables(path);
}

// `path` from `base`, without '.', '..' and a '/' at the end.
fs::path Normal(const fs::path& base, const fs::path& path) {
  fs::path normal = (base / path).lexically_normal();
  return normal.has_filename() || normal == normal.root_path() ? normal : normal.parent_path();
}

absl::Status At(const YAML::Node& node, std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("line ", node.Mark().line + 1, ": ", message));
}

// The text of one value; null is "".
absl::StatusOr<std::string> Text(const YAML::Node& value, std::string_view key) {
  if (value.IsNull()) return "";
  if (!value.IsScalar()) {
    return At(value, absl::StrCat(key, " must be a string, its paths one a line ('", key, ": |')"));
  }
  if (value.Scalar().find('\0') != std::string::npos)
    return At(value, absl::StrCat("a NUL in ", key));
  return value.Scalar();
}

struct Entry {
  bool is_default = false;
  ExtraModelPaths paths;
};

std::vector<std::string>* ListOf(std::string_view key, ExtraModelPaths& paths) {
  if (key == "checkpoints") return &paths.checkpoints;
  if (key == "loras") return &paths.loras;
  if (key == "embeddings") return &paths.embeddings;
  if (key == "vae_approx") return &paths.vae_approx;
  return nullptr;
}

absl::StatusOr<Entry> ParseEntry(const YAML::Node& node, const fs::path& yaml_folder) {
  Entry entry;
  fs::path base = yaml_folder;
  for (const auto& field : node) {
    const std::string& key = field.first.Scalar();
    if (key == "base_path") {
      ASSIGN_OR_RETURN(const std::string text, Text(field.second, key));
      base = Normal(yaml_folder, Expand(absl::StripAsciiWhitespace(text)));
    } else if (key == "is_default" &&
               !YAML::convert<bool>::decode(field.second, entry.is_default)) {
      return At(field.second, "is_default must be true or false");
    }
  }
  for (const auto& field : node) {
    const std::string& key = field.first.Scalar();
    std::vector<std::string>* list = ListOf(key, entry.paths);
    if (list == nullptr) continue;
    ASSIGN_OR_RETURN(const std::string text, Text(field.second, key));
    for (const std::string_view line : absl::StrSplit(text, '\n')) {
      const std::string_view path = absl::StripAsciiWhitespace(line);
      if (!path.empty()) list->push_back(Normal(base, Expand(path)).string());
    }
  }
  return entry;
}

void AppendNew(const std::vector<std::string>& from, std::vector<std::string>& to) {
  for (const std::string& path : from) {
    if (std::find(to.begin(), to.end(), path) == to.end()) to.push_back(path);
  }
}

absl::StatusOr<ExtraModelPaths> ParseDocument(const YAML::Node& document,
                                              const fs::path& yaml_folder) {
  if (document.IsNull()) return ExtraModelPaths();
  if (!document.IsMap()) return At(document, "must be a map of named entries");
  std::vector<Entry> entries;
  for (const auto& field : document) {
    if (field.second.IsNull()) continue;
    if (!field.second.IsMap()) {
      return At(field.second, absl::StrCat("entry ", Quoted(field.first.Scalar()),
                                           " must be a map of base_path and folders"));
    }
    ASSIGN_OR_RETURN(Entry entry, ParseEntry(field.second, yaml_folder));
    entries.push_back(std::move(entry));
  }
  std::stable_partition(entries.begin(), entries.end(),
                        [](const Entry& entry) { return entry.is_default; });
  ExtraModelPaths all;
  for (const Entry& entry : entries) {
    AppendNew(entry.paths.checkpoints, all.checkpoints);
    AppendNew(entry.paths.loras, all.loras);
    AppendNew(entry.paths.embeddings, all.embeddings);
    AppendNew(entry.paths.vae_approx, all.vae_approx);
  }
  return all;
}

// ParseDocument over text, without yaml-cpp's exceptions.
absl::StatusOr<ExtraModelPaths> ParseText(const std::string& yaml, const fs::path& yaml_folder) {
  try {
    return ParseDocument(YAML::Load(yaml), yaml_folder);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("line ", error.mark.line + 1, ": ", error.msg));
  }
}

}  // namespace

absl::StatusOr<ExtraModelPaths> ParseExtraModelPaths(const std::string& yaml,
                                                     const std::string& origin) {
  std::error_code error;
  const fs::path absolute = fs::absolute(origin, error);
  if (error) {
    return absl::InternalError(
        absl::StrCat("no working folder to find ", Quoted(origin), " in: ", error.message()));
  }
  absl::StatusOr<ExtraModelPaths> paths = ParseText(yaml, absolute.parent_path());
  if (paths.ok()) return paths;
  return absl::Status(paths.status().code(),
                      absl::StrCat(Quoted(origin), ", ", paths.status().message()));
}

absl::StatusOr<ExtraModelPaths> ReadExtraModelPaths(const std::string& yaml_path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(yaml_path));
  std::string yaml(file.size(), '\0');
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(yaml))));
  return ParseExtraModelPaths(yaml, yaml_path);
}

}  // namespace distorch
