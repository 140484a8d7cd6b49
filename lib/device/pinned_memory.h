// Page-locked host memory: what CUDA devices copy from at the link's full speed, beside computing.
#ifndef LIB_DEVICE_PINNED_MEMORY_H_
#define LIB_DEVICE_PINNED_MEMORY_H_

#include <cstddef>
#include <optional>
#include <utility>

namespace distorch {

// Memory of somebody else's that stays page-locked as long as the object, which must go before the
// memory does. Move-only.
class PinnedMemory {
 public:
  // nullopt without a CUDA driver, and where the driver does not want to.
  static std::optional<PinnedMemory> Pin(void* data, size_t bytes);

  PinnedMemory(PinnedMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  PinnedMemory& operator=(PinnedMemory&&) = delete;
  ~PinnedMemory();

 private:
  explicit PinnedMemory(void* data) : data_(data) {}
  void* data_;
};

}  // namespace distorch

#endif  // LIB_DEVICE_PINNED_MEMORY_H_
