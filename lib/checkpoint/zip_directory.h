// The directory of a zip archive, with 64-bit sizes where it has them: PKWARE's APPNOTE.TXT 6.3.
// Entries must be stored: their bytes are read in place, nothing is ever decompressed.
#ifndef LIB_CHECKPOINT_ZIP_DIRECTORY_H_
#define LIB_CHECKPOINT_ZIP_DIRECTORY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "lib/checkpoint/byte_source.h"

namespace distorch {

struct ZipEntry {
  std::string name;
  uint16_t flags = 0, method = 0;
  uint64_t compressed_size = 0, size = 0;
  uint64_t header_offset = 0;  // of its local header, from the start of the file
};

// Movable, not copyable.
class ZipDirectory {
 public:
  ZipDirectory(ZipDirectory&&) = default;
  ZipDirectory& operator=(ZipDirectory&&) = default;

  // Input is hostile. INVALID_ARGUMENT: no end record (a truncated file), a directory that is not
  // where the record says, over 64 MiB or damaged, an archive of several disks, duplicate names.
  static absl::StatusOr<ZipDirectory> Read(const ByteSource& file);

  const std::vector<ZipEntry>& entries() const { return entries_; }
  const ZipEntry* Find(std::string_view name) const;

  // Where a stored entry's bytes are. INVALID_ARGUMENT, naming the entry, when it is compressed or
  // encrypted, its local header is another's, or it does not end before the directory.
  absl::StatusOr<ByteRange> Locate(const ByteSource& file, const ZipEntry& entry) const;

 private:
  ZipDirectory() = default;

  std::vector<ZipEntry> entries_;
  absl::flat_hash_map<std::string_view, size_t> by_name_;  // views of entries_'s names
  uint64_t directory_start_ = 0;
};

}  // namespace distorch

#endif  // LIB_CHECKPOINT_ZIP_DIRECTORY_H_
