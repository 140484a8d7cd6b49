#include "tests/support/safetensors_writer.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <optional>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace distorch {
namespace {

using Json = nlohmann::json;

std::string JsonString(const std::string& text) { return Json(text).dump(); }

}  // namespace

uint64_t SafetensorsEntry::bytes() const {
  return std::accumulate(shape.begin(), shape.end(), uint64_t{DTypeSize(dtype)},
                         std::multiplies<>());
}

std::string SafetensorsHeaderBytes(const std::vector<SafetensorsEntry>& entries,
                                   const SafetensorsMetadata& metadata) {
  std::vector<std::string> fields;
  if (!metadata.empty()) fields.push_back(absl::StrCat("\"__metadata__\":", Json(metadata).dump()));
  uint64_t offset = 0;
  for (const SafetensorsEntry& entry : entries) {
    const uint64_t end = offset + entry.bytes();
    fields.push_back(absl::StrCat(JsonString(entry.name), ":{\"dtype\":\"", DTypeName(entry.dtype),
                                  "\",\"shape\":[", absl::StrJoin(entry.shape, ","),
                                  "],\"data_offsets\":[", offset, ",", end, "]}"));
    offset = end;
  }
  std::string text = absl::StrCat("{", absl::StrJoin(fields, ","), "}");
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::string prefix(sizeof(length), '\0');
  std::memcpy(prefix.data(), &length, sizeof(length));
  return prefix + text;
}

absl::Status WriteSafetensors(const std::string& path, const std::vector<SafetensorsEntry>& entries,
                              const SafetensorsMetadata& metadata) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  const std::string header = SafetensorsHeaderBytes(entries, metadata);
  file << header;
  uint64_t offset = header.size();
  for (const SafetensorsEntry& entry : entries) {
    if (!entry.data.empty() && entry.data.size() != entry.bytes()) {
      return absl::InvalidArgumentError(
          absl::StrCat(entry.name, " needs ", entry.bytes(), " bytes"));
    }
    file.seekp(static_cast<std::streamoff>(offset)) << entry.data;
    offset += entry.bytes();
  }
  file.close();
  std::error_code error;
  if (!file.fail()) std::filesystem::resize_file(path, offset, error);
  if (file.fail() || error) return absl::UnknownError(absl::StrCat("cannot write ", path));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SafetensorsEntry>> RealHeader(const std::string& golden_dir,
                                                         const std::string& name) {
  std::ifstream file(golden_dir + "/real_headers.json");
  const Json headers = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!headers.is_object() || !headers.contains(name)) {
    return absl::NotFoundError(absl::StrCat("no header ", name, " in ", golden_dir));
  }
  std::vector<SafetensorsEntry> entries;
  for (const auto& [tensor, description] : headers[name].items()) {
    const std::optional<DType> dtype = ParseDType(description[0].get<std::string>());
    if (!dtype) return absl::InvalidArgumentError(absl::StrCat("unknown dtype of ", tensor));
    entries.push_back({tensor, *dtype, description[1].get<std::vector<int64_t>>(), ""});
  }
  return entries;
}

}  // namespace distorch
