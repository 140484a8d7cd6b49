// The tensors of one block as they are stored, on whichever device or on disk, and copies of them
// in the same form.
#ifndef LIB_DISTORCH_STORED_WEIGHTS_H_
#define LIB_DISTORCH_STORED_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"

namespace distorch {

// Reads a block's tensors from where they have no memory of their own. Thread-safe.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Fills `into`: tensors of the block's shapes and types, contiguous, on the CPU. DATA_LOSS when
  // what is read has changed since.
  virtual absl::Status Read(std::span<const at::Tensor> into) const = 0;
};

struct StoredWeights {
  // At most weight and bias, all on one device. Those on disk are of the meta device: shape and
  // type, no memory.
  std::vector<at::Tensor> tensors;
  std::shared_ptr<const WeightSource> source;  // of those on disk; else null

  bool on_disk() const { return source != nullptr; }
  at::Device device() const { return tensors.front().device(); }
  int64_t bytes() const;
};

// Simulated devices live in host memory, too.
bool IsHostMemory(const at::Device& device);

// New tensors on `device`, formed as `stored`, with any content.
std::vector<at::Tensor> EmptyLike(const StoredWeights& stored, const at::Device& device);

struct CopyOptions {
  bool through_host = false;  // between two accelerators
  bool non_blocking = false;  // may return before a copy from host memory has ended
};

// Copies `from` into `to`, formed alike on one device. Returns the seconds that the way's first and
// second half took: from disk or through the host, to host memory and from there on; else all of it
// is the first. Throws as LibTorch does, also when the disk cannot be read.
std::array<double, 2> CopyWeights(const StoredWeights& from, std::span<const at::Tensor> to,
                                  const CopyOptions& options);

// Keeps staging bytes from being used again; gives them back when it goes. Move-only.
class StagingHold {
 public:
  StagingHold() = default;
  explicit StagingHold(absl::AnyInvocable<void()> give_back) : give_back_(std::move(give_back)) {}
  StagingHold(StagingHold&& other) noexcept
      : give_back_(std::exchange(other.give_back_, nullptr)) {}
  StagingHold& operator=(StagingHold&& other) noexcept {
    std::swap(give_back_, other.give_back_);
    return *this;
  }
  ~StagingHold() {
    if (give_back_) give_back_();
  }

  // Whether there is anything to give back.
  explicit operator bool() const { return static_cast<bool>(give_back_); }

 private:
  absl::AnyInvocable<void()> give_back_;
};

// A copy where it is needed, valid as long as `hold`; without one, as long as its tensors.
struct StagedWeights {
  std::vector<at::Tensor> tensors;
  StagingHold hold;
};

}  // namespace distorch

#endif  // LIB_DISTORCH_STORED_WEIGHTS_H_
