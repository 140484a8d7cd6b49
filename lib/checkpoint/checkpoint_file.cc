#include "lib/checkpoint/checkpoint_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/sha256.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/byte_source.h"
#include "lib/checkpoint/checkpoint_parts.h"
#include "lib/checkpoint/gguf.h"
#include "lib/checkpoint/safetensors.h"
#include "lib/checkpoint/strided_tensor.h"
#include "lib/checkpoint/torch_archive.h"
#include "lib/checkpoint/torch_legacy.h"

namespace distorch {
namespace {

constexpr std::size_t kSniffBytes = 512;
constexpr uint64_t kSamples = 256;
constexpr uint64_t kSampleBytes = 4096;
constexpr uint64_t kTensorSampleBytes = 512;

// Characters of text, but for a UTF-8 sequence that the end of `start` may have cut.
bool LooksLikeText(std::string_view start) {
  return Utf8PrefixLength(start) + 3 >= start.size() &&
         std::none_of(start.begin(), start.end(),
                      [](char c) { return absl::ascii_iscntrl(c) && !absl::ascii_isspace(c); });
}

// A safetensors header's length and its '{'.
bool LooksLikeSafetensors(std::string_view start) {
  uint64_t length = 0;
  if (start.size() <= sizeof(length) || start[sizeof(length)] != '{') return false;
  std::memcpy(&length, start.data(), sizeof(length));
  return length <= kMaxSafetensorsHeaderBytes;
}

// What a file that begins with `start`, and is none of our formats, seems to be; "" for unknown
// bytes.
std::string DescribeOther(std::string_view start) {
  if (start.empty()) return "the file is empty";
  // PROTO, and a protocol from 2 (the first that has the opcode) to 5.
  if (start[0] == '\x80' && start.size() > 1 && start[1] >= 2 && start[1] <= 5) {
    return "it is a Python pickle, but not one of torch.save";
  }
  if (absl::StartsWith(start, "version https://git-lfs.github.com/spec/")) {
    return "it is a Git LFS pointer; fetch the file itself with 'git lfs pull'";
  }
  if (!LooksLikeText(start)) return "";
  const std::string_view text = absl::StripLeadingAsciiWhitespace(start);
  if (absl::StartsWithIgnoreCase(text, "<!doctype html") ||
      absl::StartsWithIgnoreCase(text, "<html")) {
    return "it is an HTML page; the download probably needed a login or failed";
  }
  return absl::StrCat("it is a text file that begins with ", Quoted(text.substr(0, 40)));
}

struct FileIndex {
  std::string_view format;
  TensorIndex index;
};

absl::StatusOr<FileIndex> ReadIndex(const MappedFile& file) {
  using namespace std::string_view_literals;
  std::string start(std::min<uint64_t>(file.size(), kSniffBytes), '\0');
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(start))));
  if (!LooksLikeSafetensors(start)) {
    const FileSource source(file);
    if (absl::StartsWith(start, "PK\x03\x04"sv)) {
      ASSIGN_OR_RETURN(TensorIndex index, ReadTorchArchive(source));
      return FileIndex{"pytorch", std::move(index)};
    }
    if (IsTorchLegacy(start)) {
      ASSIGN_OR_RETURN(TensorIndex index, ReadTorchLegacy(source));
      return FileIndex{"pytorch", std::move(index)};
    }
    if (absl::StartsWith(start, "GGUF"sv)) {
      ASSIGN_OR_RETURN(TensorIndex index, ReadGguf(source));
      return FileIndex{"gguf", std::move(index)};
    }
    if (const std::string other = DescribeOther(start); !other.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("not a checkpoint: ", other));
    }
  }
  ASSIGN_OR_RETURN(SafetensorsHeader header, ReadSafetensorsHeader(file));
  return FileIndex{"safetensors", std::move(header.index)};
}

// Everything of the index that is not a place in the files.
std::string Describe(const TensorIndex& index) {
  std::string text;
  for (const TensorInfo& tensor : index.tensors()) {
    absl::StrAppend(&text, tensor.name.size(), ":", tensor.name, DTypeName(tensor.dtype),
                    ShapeString(tensor.shape),
                    tensor.strides.empty() ? "" : ShapeString(tensor.strides), "\n");
  }
  const std::map<std::string_view, std::string_view> metadata(index.metadata().begin(),
                                                              index.metadata().end());
  for (const auto& [key, value] : metadata) {
    absl::StrAppend(&text, key.size(), ":", key, value.size(), ":", value, "\n");
  }
  return text;
}

// The files together name each tensor once, and all that were promised.
absl::Status CheckNames(const std::string& path, const std::vector<TensorInfo>& tensors,
                        const std::vector<std::string>& promised) {
  absl::flat_hash_set<std::string_view> names;
  for (const TensorInfo& tensor : tensors) {
    if (names.insert(tensor.name).second) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(path), ": the tensor ", Quoted(tensor.name), " is in two files"));
  }
  for (const std::string& name : promised) {
    if (names.contains(name)) continue;
    return absl::InvalidArgumentError(absl::StrCat(Quoted(path), ": no file holds the tensor ",
                                                   Quoted(name), ", which the index lists"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CheckpointFile>> CheckpointFile::Open(
    const std::string& path) {
  ASSIGN_OR_RETURN(const CheckpointParts parts, FindCheckpointParts(path));
  std::vector<MappedFile> files;
  std::string_view format;
  std::vector<TensorInfo> tensors;
  absl::flat_hash_map<std::string, std::string> metadata;
  for (const CheckpointPart& part : parts.files) {
    ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(part.path));
    absl::StatusOr<FileIndex> read = ReadIndex(file);
    if (!read.ok()) return Within(Quoted(part.path), read.status());
    for (TensorInfo tensor : read->index.tensors()) {
      tensor.name.insert(0, part.prefix);
      tensor.file = static_cast<uint32_t>(files.size());
      tensors.push_back(std::move(tensor));
    }
    format = read->format;
    // What one file says of itself is not true of several.
    if (parts.files.size() == 1) metadata = read->index.metadata();
    files.push_back(std::move(file));
  }
  RETURN_IF_ERROR(CheckNames(path, tensors, parts.promised));
  if (!parts.files.front().prefix.empty()) format = "diffusers";
  return std::shared_ptr<const CheckpointFile>(new CheckpointFile(
      path, format, std::move(files), TensorIndex(std::move(tensors), std::move(metadata))));
}

CheckpointFile::CheckpointFile(std::string path, std::string_view format,
                               std::vector<MappedFile> files, TensorIndex index)
    : path_(std::move(path)), format_(format), files_(std::move(files)), index_(std::move(index)) {}

uint64_t CheckpointFile::size() const {
  uint64_t bytes = 0;
  for (const MappedFile& file : files_) bytes += file.size();
  return bytes;
}

std::span<const std::byte> CheckpointFile::Data(const TensorInfo& info) const {
  return files_[info.file].bytes().subspan(info.offset, info.bytes);
}

absl::Status CheckpointFile::Read(const TensorInfo& info, uint64_t offset_in_tensor,
                                  std::span<std::byte> out) const {
  if (offset_in_tensor > info.bytes || out.size() > info.bytes - offset_in_tensor) {
    return absl::OutOfRangeError(absl::StrCat("tensor ", Quoted(info.name), " has ", info.bytes,
                                              " bytes; asked for ", out.size(), " from ",
                                              offset_in_tensor));
  }
  const MappedFile& file = files_[info.file];
  if (!info.strides.empty()) return ReadStrided(FileSource(file), info, offset_in_tensor, out);
  return file.ReadAt(info.offset + offset_in_tensor, out);
}

absl::Status CheckpointFile::CheckUnchanged() const {
  for (const MappedFile& file : files_) RETURN_IF_ERROR(file.CheckUnchanged());
  return absl::OkStatus();
}

absl::StatusOr<std::string> CheckpointFile::Fingerprint() const {
  const uint64_t total = size();
  Sha256 hash;
  hash.Update(absl::StrCat("distorch fingerprint 2\n", total, "\n", Describe(index_)));
  std::vector<std::byte> buffer;
  const auto add = [&](const MappedFile& file, uint64_t offset, uint64_t bytes) -> absl::Status {
    buffer.resize(std::min(bytes, file.size() - offset));
    RETURN_IF_ERROR(file.ReadAt(offset, buffer));
    hash.Update(buffer);
    return absl::OkStatus();
  };
  if (total <= kSamples * kSampleBytes) {
    for (const MappedFile& file : files_) RETURN_IF_ERROR(add(file, 0, file.size()));
  } else {
    // Of the files as if they were one.
    const uint64_t last = total - kSampleBytes;
    for (uint64_t i = 0; i < kSamples; ++i) {
      uint64_t position = i + 1 < kSamples ? last / (kSamples - 1) * i : last;
      auto file = files_.begin();
      while (position >= file->size()) position -= (file++)->size();
      RETURN_IF_ERROR(add(*file, position, kSampleBytes));
    }
    // Models of one layout may differ in a single small tensor: SD 2 and its v-prediction kin in a
    // bias.
    for (const TensorInfo& tensor : index_.tensors()) {
      RETURN_IF_ERROR(
          add(files_[tensor.file], tensor.offset, std::min(tensor.bytes, kTensorSampleBytes)));
    }
  }
  ASSIGN_OR_RETURN(const std::string digest, hash.HexDigest());
  return digest.substr(0, 32);
}

}  // namespace distorch
