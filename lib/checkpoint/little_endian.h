// Numbers as files store them.
#ifndef LIB_CHECKPOINT_LITTLE_ENDIAN_H_
#define LIB_CHECKPOINT_LITTLE_ENDIAN_H_

#include <bit>
#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>

namespace distorch {

// The number at `offset`; the caller has checked that its bytes are there.
template <typename T>
T LoadLittleEndian(std::span<const std::byte> bytes, std::size_t offset = 0) {
  static_assert(std::is_trivially_copyable_v<T> && std::endian::native == std::endian::little);
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

}  // namespace distorch

#endif  // LIB_CHECKPOINT_LITTLE_ENDIAN_H_
