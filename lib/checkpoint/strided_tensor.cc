#include "lib/checkpoint/strided_tensor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "lib/base/status_macros.h"

namespace distorch {
namespace {

// Counts through all indices below `counts`, the last dimension fastest; false after the last.
bool Advance(const std::vector<uint64_t>& counts, std::vector<uint64_t>* index) {
  for (size_t i = counts.size(); i-- > 0;) {
    if (++(*index)[i] < counts[i]) return true;
    (*index)[i] = 0;
  }
  return false;
}

std::vector<uint64_t> ContiguousStrides(const std::vector<int64_t>& shape) {
  std::vector<uint64_t> strides(shape.size());
  uint64_t step = 1;
  for (size_t i = shape.size(); i-- > 0; step *= static_cast<uint64_t>(shape[i])) strides[i] = step;
  return strides;
}

}  // namespace

bool IsContiguous(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  int64_t expected = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

std::optional<uint64_t> SpanOf(const std::vector<int64_t>& shape,
                               const std::vector<int64_t>& strides) {
  constexpr uint64_t kMost = uint64_t{1} << 60;
  uint64_t span = 1, step = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (__builtin_mul_overflow(static_cast<uint64_t>(shape[i] - 1),
                               static_cast<uint64_t>(strides[i]), &step) ||
        __builtin_add_overflow(span, step, &span) || span > kMost)
      return std::nullopt;
  }
  return span;
}

absl::Status ReadStrided(const ByteSource& file, const TensorInfo& tensor,
                         uint64_t offset_in_tensor, std::span<std::byte> out) {
  if (out.empty()) return absl::OkStatus();
  const uint64_t size = DTypeSize(tensor.dtype);
  const uint64_t first = offset_in_tensor / size;
  const uint64_t last = (offset_in_tensor + out.size() - 1) / size;
  const std::vector<uint64_t> contiguous = ContiguousStrides(tensor.shape);
  const uint64_t first_row = first / contiguous[0], last_row = last / contiguous[0];

  // Along the dimension whose neighbours are neighbours in the storage, if there is one.
  const auto unit = static_cast<size_t>(std::find(tensor.strides.begin(), tensor.strides.end(), 1) -
                                        tensor.strides.begin());
  std::vector<uint64_t> counts(tensor.shape.begin(), tensor.shape.end());
  counts[0] = last_row - first_row + 1;
  const uint64_t run = unit < counts.size() ? std::exchange(counts[unit], 1) : 1;
  const uint64_t step = unit < counts.size() ? contiguous[unit] : 1;

  std::vector<std::byte> elements((last - first + 1) * size), read(run * size);
  std::vector<uint64_t> index(counts.size());
  do {
    uint64_t element = first_row * contiguous[0];
    uint64_t position = first_row * static_cast<uint64_t>(tensor.strides[0]);
    for (size_t i = 0; i < index.size(); ++i) {
      element += index[i] * contiguous[i];
      position += index[i] * static_cast<uint64_t>(tensor.strides[i]);
    }
    if (element > last || element + (run - 1) * step < first) continue;
    RETURN_IF_ERROR(file.ReadAt(tensor.offset + position * size, read));
    for (uint64_t i = 0; i < run; ++i, element += step) {
      if (element < first || element > last) continue;
      std::memcpy(&elements[(element - first) * size], &read[i * size], size);
    }
  } while (Advance(counts, &index));
  std::memcpy(out.data(), &elements[offset_in_tensor - first * size], out.size());
  return absl::OkStatus();
}

}  // namespace distorch
