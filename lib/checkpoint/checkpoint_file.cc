#include "lib/checkpoint/checkpoint_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/sha256.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/safetensors.h"

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

// What a file that begins with `start` seems to be, when that is no safetensors; else "".
std::string DescribeOther(std::string_view start) {
  using namespace std::string_view_literals;
  if (start.empty()) return "the file is empty";
  if (LooksLikeSafetensors(start)) return "";
  const auto unsupported = [](std::string_view what) {
    return absl::StrCat("it looks like ", what, ", which is not supported yet");
  };
  if (absl::StartsWith(start, "PK\x03\x04")) {
    return unsupported("a PyTorch zip archive (.ckpt, .pt, .pth, .bin)");
  }
  // PROTO, and a protocol from 2 (the first that has the opcode) to 5.
  if (start[0] == '\x80' && start.size() > 1 && start[1] >= 2 && start[1] <= 5) {
    return unsupported("a Python pickle (an old .ckpt or .pt)");
  }
  if (absl::StartsWith(start, "GGUF")) return unsupported("a GGUF file");
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

}  // namespace

absl::StatusOr<std::shared_ptr<const CheckpointFile>> CheckpointFile::Open(
    const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  std::string start(std::min<uint64_t>(file.size(), kSniffBytes), '\0');
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(start))));
  if (const std::string other = DescribeOther(start); !other.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(path), " is not a safetensors file: ", other));
  }
  absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(file);
  if (!header.ok()) {
    return absl::Status(header.status().code(),
                        absl::StrCat(Quoted(path), ": ", header.status().message()));
  }
  return std::shared_ptr<const CheckpointFile>(
      new CheckpointFile(std::move(file), std::move(header->index), header->data_start));
}

CheckpointFile::CheckpointFile(MappedFile file, TensorIndex index, uint64_t data_start)
    : file_(std::move(file)), index_(std::move(index)), data_start_(data_start) {}

std::span<const std::byte> CheckpointFile::Data(const TensorInfo& info) const {
  return file_.bytes().subspan(info.offset, info.bytes);
}

absl::Status CheckpointFile::Read(const TensorInfo& info, uint64_t offset_in_tensor,
                                  std::span<std::byte> out) const {
  if (offset_in_tensor > info.bytes || out.size() > info.bytes - offset_in_tensor) {
    return absl::OutOfRangeError(absl::StrCat("tensor ", Quoted(info.name), " has ", info.bytes,
                                              " bytes; asked for ", out.size(), " from ",
                                              offset_in_tensor));
  }
  return file_.ReadAt(info.offset + offset_in_tensor, out);
}

absl::StatusOr<std::string> CheckpointFile::Fingerprint() const {
  Sha256 hash;
  hash.Update(absl::StrCat("distorch fingerprint 1\n", size(), "\n"));
  std::vector<std::byte> buffer;
  const auto add = [&](uint64_t offset, uint64_t bytes) -> absl::Status {
    buffer.resize(bytes);
    RETURN_IF_ERROR(file_.ReadAt(offset, buffer));
    hash.Update(buffer);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(add(0, data_start_));
  const uint64_t data_bytes = size() - data_start_;
  if (data_bytes <= kSamples * kSampleBytes) {
    RETURN_IF_ERROR(add(data_start_, data_bytes));
  } else {
    const uint64_t last = data_bytes - kSampleBytes;
    for (uint64_t i = 0; i < kSamples; ++i) {
      const uint64_t position = i + 1 < kSamples ? last / (kSamples - 1) * i : last;
      RETURN_IF_ERROR(add(data_start_ + position, kSampleBytes));
    }
    // Models of one layout may differ in a single small tensor: SD 2 and its v-prediction kin in a
    // bias.
    for (const TensorInfo& tensor : index_.tensors()) {
      RETURN_IF_ERROR(add(tensor.offset, std::min(tensor.bytes, kTensorSampleBytes)));
    }
  }
  ASSIGN_OR_RETURN(const std::string digest, hash.HexDigest());
  return digest.substr(0, 32);
}

}  // namespace distorch
