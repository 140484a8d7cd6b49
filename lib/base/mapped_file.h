// A read-only file: its bytes mapped into memory, and positioned reads for bulk copies.
#ifndef LIB_BASE_MAPPED_FILE_H_
#define LIB_BASE_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace distorch {

// Movable, not copyable; the mapping lives as long as the object. Const methods may be called from
// many threads.
class MappedFile {
 public:
  // Errors name `path`: NOT_FOUND, PERMISSION_DENIED, or INVALID_ARGUMENT for anything that is not
  // a regular file. An empty file maps to an empty span.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }

  // The whole file, zero-copy. Reading it after somebody truncated the file raises SIGBUS: bulk
  // reads that must survive that use ReadAt.
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  // Reads exactly out.size() bytes at `offset` through the page cache (pread), without touching the
  // mapping, so that the pages never count as this process's memory. DATA_LOSS when somebody
  // truncated the file or wrote to it since it was opened. (One that was replaced or removed is
  // read as it was.)
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const;

  // DATA_LOSS when somebody truncated the file or wrote to it since it was opened, be it with what
  // was there.
  absl::Status CheckUnchanged() const;

 private:
  MappedFile(std::string path, int fd);

  std::string path_;
  int fd_ = -1;
  int64_t modified_ = 0;  // nanoseconds since the epoch, when it was opened
  const std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace distorch

#endif  // LIB_BASE_MAPPED_FILE_H_
