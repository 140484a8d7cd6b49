// A checkpoint on disk, whatever its format: an index of its tensors and access to their bytes.
#ifndef LIB_CHECKPOINT_CHECKPOINT_FILE_H_
#define LIB_CHECKPOINT_CHECKPOINT_FILE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/base/mapped_file.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {

// Immutable and thread-safe. What a file is, its content says, not its name: safetensors
// (lib/checkpoint/safetensors.h), PyTorch's (torch_archive.h, torch_legacy.h), GGUF (gguf.h). A
// checkpoint may have several files (checkpoint_parts.h); in that of a diffusers folder, names
// begin with the subfolder's ("unet.conv_in.weight").
class CheckpointFile {
 public:
  // Reads the headers only. INVALID_ARGUMENT, naming the file and what was seen, when it is not a
  // checkpoint we read.
  static absl::StatusOr<std::shared_ptr<const CheckpointFile>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  std::string_view format() const {
    return format_;
  }                       // "safetensors", "pytorch", "gguf", "diffusers"
  uint64_t size() const;  // bytes on disk
  const TensorIndex& index() const { return index_; }

  // Zero-copy view into the mapping; `info` must come from this file's index, and have no strides.
  std::span<const std::byte> Data(const TensorInfo& info) const;
  // Copies out.size() bytes of the contiguous tensor from `offset_in_tensor` on
  // (MappedFile::ReadAt). OUT_OF_RANGE past the tensor's end; DATA_LOSS when the file was truncated
  // since.
  absl::Status Read(const TensorInfo& info, uint64_t offset_in_tensor,
                    std::span<std::byte> out) const;

  // MappedFile::CheckUnchanged of all its files.
  absl::Status CheckUnchanged() const;

  // 32 hex digits that identify the content: SHA-256 over the size, the index, 256 evenly spaced
  // samples of the bytes (1 MiB, the first and the last bytes among them) and the first 512 bytes
  // of each tensor; over all of the bytes when they are no more than 1 MiB. Equal on every host
  // that holds the same checkpoint, whatever its name or time stamps.
  absl::StatusOr<std::string> Fingerprint() const;

 private:
  CheckpointFile(std::string path, std::string_view format, std::vector<MappedFile> files,
                 TensorIndex index);

  std::string path_;
  std::string_view format_;
  std::vector<MappedFile> files_;
  TensorIndex index_;
};

}  // namespace distorch

#endif  // LIB_CHECKPOINT_CHECKPOINT_FILE_H_
