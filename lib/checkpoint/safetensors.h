// The safetensors format: https://github.com/huggingface/safetensors#format
//   8 bytes   N, little-endian: length of the header
//   N bytes   JSON: {"name": {"dtype": "F16", "shape": [1, 2], "data_offsets": [begin, end]}, "__metadata__": {…}}
//   rest      the tensors' bytes; data_offsets count from here
#ifndef LIB_CHECKPOINT_SAFETENSORS_H_
#define LIB_CHECKPOINT_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {

// The format's own limit: 100 MB of header.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsHeader {
  TensorIndex index;        // offsets are from the start of the file
  uint64_t data_start = 0;  // 8 + N
};

// Parses the header of the file whose first bytes are `file` and whose whole size is `file.size()`. Input is hostile:
// every length is checked before it is used. INVALID_ARGUMENT with what is wrong and where: header too short, too long
// or past the end; not UTF-8; not the JSON above; duplicate names; an unknown dtype; a negative or overflowing shape;
// offsets that are reversed, past the end, do not match the shape, overlap, or leave a gap.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::span<const std::byte> file);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_SAFETENSORS_H_
