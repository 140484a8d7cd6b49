// What a reader of a format reads: a file, or memory in tests and fuzzers.
#ifndef LIB_CHECKPOINT_BYTE_SOURCE_H_
#define LIB_CHECKPOINT_BYTE_SOURCE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "lib/base/mapped_file.h"

namespace distorch {

// Bytes [begin, begin + size) of a source.
struct ByteRange {
  uint64_t begin = 0, size = 0;
};

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t size() const = 0;
  // Reads exactly out.size() bytes. DATA_LOSS when there are fewer from `offset` on.
  virtual absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const = 0;
};

// Reads by MappedFile::ReadAt, so that a file that shrinks meanwhile is an error and not a SIGBUS.
// `file` must outlive it.
class FileSource final : public ByteSource {
 public:
  explicit FileSource(const MappedFile& file) : file_(file) {}
  uint64_t size() const override { return file_.size(); }
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    return file_.ReadAt(offset, out);
  }

 private:
  const MappedFile& file_;
};

// `bytes` must outlive it.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint64_t size() const override { return bytes_.size(); }
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
      return absl::DataLossError("a read past the end");
    }
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return absl::OkStatus();
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace distorch

#endif  // LIB_CHECKPOINT_BYTE_SOURCE_H_
