// The safetensors format: https://github.com/huggingface/safetensors#format
//   8 bytes   N, little-endian: length of the header
//   N bytes   JSON: {"name": {"dtype": "F16", "shape": [1, 2], "data_offsets": [begin, end]},
//   "__metadata__": {…}},
//             padded with spaces
//   rest      the tensors' bytes; data_offsets count from here
#ifndef LIB_CHECKPOINT_SAFETENSORS_H_
#define LIB_CHECKPOINT_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "lib/base/mapped_file.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {

// The format's own limit: 100 MB of header.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
// No limit of the format's; PyTorch's operators take no more, and a hostile header no more memory.
inline constexpr std::size_t kMaxTensorDims = 64;

struct SafetensorsHeader {
  TensorIndex index;        // offsets are from the start of the file
  uint64_t data_start = 0;  // 8 + N
};

// Parses the header of the file that `file` holds whole. Input is hostile: every length is checked
// before it is used; time and memory are linear in N. INVALID_ARGUMENT with what is wrong and
// where: header too short, too long or past the end; not UTF-8; not the JSON above; duplicate
// names; an unknown dtype; a negative or overflowing shape; offsets that are reversed, do not match
// the shape, overlap, leave a gap, or end before or after the file does.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::span<const std::byte> file);

// The same of a file on disk. Reads its first 8 + N bytes by MappedFile::ReadAt, so that a file
// that shrinks meanwhile is an error and not a SIGBUS.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const MappedFile& file);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_SAFETENSORS_H_
