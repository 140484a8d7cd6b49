#include "lib/checkpoint/checkpoint_parts.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/mapped_file.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "nlohmann/json.hpp"

namespace distorch {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::string_view kIndexSuffix = ".index.json";
constexpr uint64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxShards = 1000;

// A diffusers folder's models that are of use here, and whether a checkpoint must have one of them.
constexpr std::string_view kSubfolders[] = {"unet",         "transformer",    "vae",
                                            "text_encoder", "text_encoder_2", "text_encoder_3"};
// The best first: full precision, safetensors.
constexpr std::string_view kWeightFiles[] = {
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "model.fp16.safetensors",
    "model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
};

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool IsIndexName(std::string_view name) {
  return absl::EndsWith(name, kIndexSuffix) || absl::EndsWith(name, ".index.fp16.json");
}

// "NAME" of a shard "NAME-00001-of-00003.safetensors".
std::optional<std::string> IndexOfShard(const fs::path& path) {
  const std::string stem = path.stem().string();
  constexpr std::string_view kPattern = "-00001-of-00003";
  if (stem.size() <= kPattern.size()) return std::nullopt;
  const std::string_view tail = std::string_view(stem).substr(stem.size() - kPattern.size());
  for (size_t i = 0; i < kPattern.size(); ++i) {
    const bool digit = absl::ascii_isdigit(static_cast<unsigned char>(kPattern[i]));
    if (digit ? !absl::ascii_isdigit(static_cast<unsigned char>(tail[i]))
              : tail[i] != kPattern[i]) {
      return std::nullopt;
    }
  }
  const std::string name = absl::StrCat(stem.substr(0, stem.size() - kPattern.size()),
                                        path.extension().string(), kIndexSuffix);
  return (path.parent_path() / name).string();
}

absl::StatusOr<Json> ReadJson(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  if (file.size() > kMaxIndexBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(path), " has ", file.size(), " bytes; the most is ", kMaxIndexBytes));
  }
  std::string text(file.size(), '\0');
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(text))));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return absl::InvalidArgumentError(absl::StrCat(Quoted(path), " is no JSON object"));
}

// Adds the shards of an index: {"weight_map": {"tensor": "file in the same folder", …}, …}.
absl::Status AddShards(const std::string& path, const std::string& prefix, CheckpointParts* parts) {
  ASSIGN_OR_RETURN(const Json json, ReadJson(path));
  const auto invalid = [&](std::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(path), ": ", what));
  };
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object() || map->empty()) {
    return invalid("no weight_map: it is no index of a sharded checkpoint");
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string())
      return invalid(absl::StrCat("tensor ", Quoted(tensor), " is in no file"));
    const auto& name = file.get_ref<const std::string&>();
    if (name.empty() || name.find_first_of(std::string_view("/\\\0", 3)) != name.npos ||
        name == "." || name == "..") {
      return invalid(absl::StrCat("the file ", Quoted(name), " is not one of its folder"));
    }
    names.insert(name);
    if (names.size() > kMaxShards) return invalid(absl::StrCat("over ", kMaxShards, " files"));
    parts->promised.push_back(prefix + tensor);
  }
  for (const std::string& name : names) {
    parts->files.push_back({(fs::path(path).parent_path() / name).string(), prefix});
  }
  return absl::OkStatus();
}

absl::StatusOr<CheckpointParts> DiffusersParts(const fs::path& folder) {
  CheckpointParts parts;
  bool has_model = false;
  for (const std::string_view subfolder : kSubfolders) {
    const auto* found =
        std::find_if(std::begin(kWeightFiles), std::end(kWeightFiles),
                     [&](std::string_view name) { return IsFile(folder / subfolder / name); });
    if (found == std::end(kWeightFiles)) continue;
    const std::string path = (folder / subfolder / *found).string();
    const std::string prefix = absl::StrCat(subfolder, ".");
    if (IsIndexName(*found)) {
      RETURN_IF_ERROR(AddShards(path, prefix, &parts));
    } else {
      parts.files.push_back({path, prefix});
    }
    has_model |= subfolder == "unet" || subfolder == "transformer";
  }
  if (has_model) return parts;
  return absl::InvalidArgumentError(
      absl::StrCat(Quoted(folder.string()),
                   " is no diffusers folder that we read: neither unet/ nor transformer/ holds ",
                   absl::StrJoin(kWeightFiles, ", ")));
}

}  // namespace

absl::StatusOr<CheckpointParts> FindCheckpointParts(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error) && IsFile(fs::path(path) / kDiffusersIndex)) {
    return DiffusersParts(path);
  }
  CheckpointParts parts;
  if (IsIndexName(path)) {
    RETURN_IF_ERROR(AddShards(path, "", &parts));
  } else if (const auto index = IndexOfShard(path); index && IsFile(*index)) {
    RETURN_IF_ERROR(AddShards(*index, "", &parts));
  } else {
    parts.files.push_back({path, ""});
  }
  return parts;
}

}  // namespace distorch
