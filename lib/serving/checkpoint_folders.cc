#include "lib/serving/checkpoint_folders.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 9> kExtensions = {
    ".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf"};
constexpr std::size_t kMaxNearNames = 5;
// Longer names get no suggestions: the distance takes time in the product of the lengths.
constexpr std::size_t kMaxComparedBytes = 255;

// A folder with this file is one model, of many files, to diffusers.
constexpr std::string_view kDiffusersIndex = "model_index.json";
// The index of a model in shards, "model.safetensors.index.json".
constexpr std::string_view kShardsIndex = ".index.json";

bool HasListedExtension(std::string_view name) {
  return std::any_of(kExtensions.begin(), kExtensions.end(), [name](std::string_view extension) {
    return absl::EndsWithIgnoreCase(name, extension);
  });
}

// OK when `name` stays inside a root. The error goes on from "checkpoint 'x' ".
absl::Status CheckRelativeName(std::string_view name) {
  if (name.empty()) return absl::InvalidArgumentError("must not be empty");
  if (name.find('\0') != name.npos) return absl::InvalidArgumentError("must not have a NUL");
  if (name.find('\\') != name.npos) {
    return absl::InvalidArgumentError("must not have a backslash; folders are separated by '/'");
  }
  if (Utf8PrefixLength(name) != name.size()) return absl::InvalidArgumentError("must be UTF-8");
  if (name.front() == '/') {
    return absl::InvalidArgumentError(
        "must be relative to a folder of models, not an absolute path");
  }
  for (const std::string_view part : absl::StrSplit(name, '/')) {
    if (part == "..") return absl::InvalidArgumentError("must not have a component '..'");
  }
  return absl::OkStatus();
}

bool IsDiffusersFolder(const fs::path& folder) {
  std::error_code error;
  return fs::is_regular_file(folder / kDiffusersIndex, error);
}

bool IsShardsIndex(std::string_view name) {
  return absl::EndsWith(name, kShardsIndex) &&
         HasListedExtension(name.substr(0, name.size() - kShardsIndex.size()));
}

// "model-00002-of-00003.safetensors", whose index stands beside it.
bool IsShardWithIndex(const fs::path& path) {
  const std::string name = path.filename().string();
  const size_t of = name.rfind("-of-"), dash = name.rfind('-', of == name.npos ? of : of - 1),
               dot = name.rfind('.');
  if (of == name.npos || of == 0 || dash == name.npos || dash == of || dot < of) return false;
  const auto digits = [&](size_t begin, size_t end) {
    return begin < end && std::all_of(name.begin() + static_cast<std::ptrdiff_t>(begin),
                                      name.begin() + static_cast<std::ptrdiff_t>(end),
                                      [](char c) { return c >= '0' && c <= '9'; });
  };
  if (!digits(dash + 1, of) || !digits(of + 4, dot)) return false;
  std::error_code error;
  return fs::is_regular_file(
      path.parent_path() / absl::StrCat(name.substr(0, dash), name.substr(dot), kShardsIndex),
      error);
}

// Walks one root, real folders before those behind symbolic links, so that a folder goes by its own
// name and not by a link's; each in the order of the names, so that the outcome does not depend on
// the disk's.
class RootWalk {
 public:
  RootWalk(const std::string& root, std::set<std::string>& names) : root_(root), names_(names) {
    folders_.insert("");
    while (!folders_.empty() || !links_.empty()) {
      std::set<std::string>& next = folders_.empty() ? links_ : folders_;
      Enter(std::move(next.extract(next.begin()).value()));
    }
  }

 private:
  // `prefix` is the folder's name and a '/', or "" for the root.
  void Enter(const std::string& prefix) {
    const fs::path folder = fs::path(root_) / prefix;
    struct stat info;
    if (stat(folder.c_str(), &info) != 0 || !visited_.emplace(info.st_dev, info.st_ino).second)
      return;
    if (!prefix.empty() && IsDiffusersFolder(folder)) {
      const std::string name = prefix.substr(0, prefix.size() - 1);
      if (CheckRelativeName(name).ok()) names_.insert(name);
      return;
    }
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      std::error_code unreadable;
      const std::string name = prefix + entry->path().filename().string();
      if (entry->is_directory(unreadable)) {
        (entry->is_symlink(unreadable) ? links_ : folders_).insert(name + "/");
      } else if ((HasListedExtension(name) || IsShardsIndex(name)) &&
                 entry->is_regular_file(unreadable) && !IsShardWithIndex(entry->path()) &&
                 CheckRelativeName(name).ok()) {
        names_.insert(name);
      }
    }
  }

  const std::string& root_;
  std::set<std::string>& names_;
  std::set<std::string> folders_, links_;
  absl::flat_hash_set<std::pair<dev_t, ino_t>> visited_;
};

// Levenshtein's distance, in bytes.
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string_view BaseName(std::string_view name) { return name.substr(name.rfind('/') + 1); }

std::string_view Stem(std::string_view name) {
  const std::string_view base = BaseName(name);
  return HasListedExtension(base) ? base.substr(0, base.rfind('.')) : base;
}

// Those of `names` that a user who wrote `wanted` may have meant, nearest first.
std::vector<std::string> NearNames(std::string_view wanted, const std::vector<std::string>& names) {
  const std::string lower = absl::AsciiStrToLower(wanted);
  std::multimap<std::size_t, std::string> by_distance;
  if (lower.size() > kMaxComparedBytes) return {};
  for (const std::string& name : names) {
    if (name.size() > kMaxComparedBytes) continue;
    const std::string candidate = absl::AsciiStrToLower(name);
    const std::size_t distance = std::min({EditDistance(lower, candidate),
                                           EditDistance(BaseName(lower), BaseName(candidate)),
                                           EditDistance(Stem(lower), Stem(candidate))});
    // Half of what was written must be there.
    if (distance <= Stem(lower).size() / 2) by_distance.emplace(distance, name);
  }
  std::vector<std::string> near;
  for (auto& [distance, name] : by_distance) {
    if (near.size() == kMaxNearNames) break;
    near.push_back(Quoted(name));
  }
  return near;
}

}  // namespace

ModelFolders::ModelFolders(std::string kind, std::vector<std::string> roots)
    : kind_(std::move(kind)), roots_(std::move(roots)) {}

std::vector<std::string> ModelFolders::List() const {
  std::set<std::string> names;
  for (const std::string& root : roots_) RootWalk(root, names);
  return {names.begin(), names.end()};
}

absl::Status ModelFolders::CheckName(std::string_view name) const {
  const absl::Status status = CheckRelativeName(name);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(kind_, " ", Quoted(name), " ", status.message()));
}

std::string ModelFolders::PathOf(std::string_view name) const {
  for (const std::string& root : roots_) {
    const fs::path path = fs::path(root) / name;
    std::error_code error;
    if (fs::is_regular_file(path, error) || IsDiffusersFolder(path)) return path.string();
  }
  return "";
}

absl::StatusOr<std::string> ModelFolders::Resolve(std::string_view name) const {
  RETURN_IF_ERROR(CheckName(name));
  std::string path = PathOf(name);
  if (path.empty()) return NotFound(name);
  return path;
}

absl::StatusOr<std::string> ModelFolders::Find(std::string_view name,
                                               std::span<const std::string_view> extensions) const {
  RETURN_IF_ERROR(CheckName(name));
  std::vector<std::string> spellings = {std::string(name)};
  for (std::string_view extension : extensions) spellings.push_back(absl::StrCat(name, extension));
  for (const std::string& spelling : spellings) {
    if (std::string path = PathOf(spelling); !path.empty()) return path;
  }
  const std::vector<std::string> names = List();
  for (const std::string& spelling : spellings) {
    const auto found = std::find_if(names.begin(), names.end(), [&](const std::string& listed) {
      return absl::EndsWith(listed, absl::StrCat("/", spelling));
    });
    if (found != names.end()) return Resolve(*found);
  }
  return NotFound(name);
}

absl::Status ModelFolders::NotFound(std::string_view name) const {
  const std::vector<std::string> names = List();
  const std::vector<std::string> near = NearNames(name, names);
  const std::string hint = near.empty()
                               ? absl::StrCat("no name of the ", names.size(), " in ",
                                              absl::StrJoin(roots_, ", "), " is like it")
                               : absl::StrCat("did you mean ", absl::StrJoin(near, " or "), "?");
  return absl::NotFoundError(absl::StrCat("there is no ", kind_, " ", Quoted(name), "; ", hint));
}

}  // namespace distorch
