#include "lib/checkpoint/zip_directory.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/little_endian.h"

namespace distorch {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEndRecord = 0x06054b50,
                   kEnd64Locator = 0x07064b50, kEnd64Record = 0x06064b50;
constexpr size_t kLocalHeaderBytes = 30, kCentralHeaderBytes = 46, kEndRecordBytes = 22,
                 kEnd64LocatorBytes = 20, kEnd64RecordBytes = 56;
constexpr size_t kMaxCommentBytes = 0xFFFF;
constexpr uint64_t kMaxDirectoryBytes = 64 << 20;
constexpr uint16_t kZip64Extra = 0x0001, kEncryptedFlag = 0x0001;
// "See the 64-bit field."
constexpr uint32_t kIn64 = 0xFFFFFFFF;
constexpr uint16_t kCountIn64 = 0xFFFF;

absl::Status Invalid(std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("zip archive: ", message));
}

struct End {
  uint64_t entries = 0, directory_bytes = 0, directory_start = 0;
  uint64_t position = 0;  // of the first end record: the directory must end there or before
};

absl::StatusOr<std::vector<std::byte>> ReadRange(const ByteSource& file, ByteRange range) {
  std::vector<std::byte> bytes(range.size);
  RETURN_IF_ERROR(file.ReadAt(range.begin, bytes));
  return bytes;
}

absl::StatusOr<End> ReadEnd64(const ByteSource& file, uint64_t locator_position) {
  ASSIGN_OR_RETURN(const auto locator, ReadRange(file, {locator_position, kEnd64LocatorBytes}));
  const auto position = LoadLittleEndian<uint64_t>(locator, 8);
  if (position > locator_position || locator_position - position < kEnd64RecordBytes) {
    return Invalid(
        absl::StrCat("the 64-bit end record at ", position, " is not before its locator"));
  }
  ASSIGN_OR_RETURN(const auto record, ReadRange(file, {position, kEnd64RecordBytes}));
  if (LoadLittleEndian<uint32_t>(record) != kEnd64Record) {
    return Invalid(absl::StrCat("no 64-bit end record at ", position));
  }
  if (LoadLittleEndian<uint32_t>(record, 16) != 0) return Invalid("it spans several disks");
  return End{LoadLittleEndian<uint64_t>(record, 32), LoadLittleEndian<uint64_t>(record, 40),
             LoadLittleEndian<uint64_t>(record, 48), position};
}

// The end record is the file's last, but for a comment that it tells the length of.
absl::StatusOr<End> ReadEnd(const ByteSource& file) {
  const uint64_t tail_bytes = std::min<uint64_t>(file.size(), kEndRecordBytes + kMaxCommentBytes);
  const uint64_t tail_start = file.size() - tail_bytes;
  ASSIGN_OR_RETURN(const auto tail, ReadRange(file, {tail_start, tail_bytes}));
  std::optional<size_t> found;
  for (size_t at = tail.size() < kEndRecordBytes ? 0 : tail.size() - kEndRecordBytes + 1;
       at-- > 0 && !found;) {
    if (LoadLittleEndian<uint32_t>(tail, at) == kEndRecord &&
        LoadLittleEndian<uint16_t>(tail, at + 20) == tail.size() - at - kEndRecordBytes) {
      found = at;
    }
  }
  if (!found) return Invalid("it has no end record: the file is truncated");
  const std::span<const std::byte> record = std::span(tail).subspan(*found);
  if (LoadLittleEndian<uint16_t>(record, 4) != 0) return Invalid("it spans several disks");
  const End end = {LoadLittleEndian<uint16_t>(record, 10), LoadLittleEndian<uint32_t>(record, 12),
                   LoadLittleEndian<uint32_t>(record, 16), tail_start + *found};
  if (end.position >= kEnd64LocatorBytes) {
    const uint64_t locator = end.position - kEnd64LocatorBytes;
    ASSIGN_OR_RETURN(const auto signature, ReadRange(file, {locator, sizeof(uint32_t)}));
    if (LoadLittleEndian<uint32_t>(signature) == kEnd64Locator) return ReadEnd64(file, locator);
  }
  if (end.entries == kCountIn64 || end.directory_bytes == kIn64 || end.directory_start == kIn64) {
    return Invalid("it has no 64-bit end record where its end record points to one");
  }
  return end;
}

// Replaces the fields that say so by those of the entry's 64-bit extra field.
absl::Status ReadZip64Extra(std::span<const std::byte> extra, ZipEntry* entry) {
  uint64_t* const fields[] = {&entry->size, &entry->compressed_size, &entry->header_offset};
  if (std::none_of(std::begin(fields), std::end(fields), [](uint64_t* f) { return *f == kIn64; })) {
    return absl::OkStatus();
  }
  while (extra.size() >= 4) {
    const auto id = LoadLittleEndian<uint16_t>(extra);
    const size_t bytes = LoadLittleEndian<uint16_t>(extra, 2);
    if (bytes > extra.size() - 4) break;
    std::span<const std::byte> data = extra.subspan(4, bytes);
    extra = extra.subspan(4 + bytes);
    if (id != kZip64Extra) continue;
    for (uint64_t* field : fields) {
      if (*field != kIn64) continue;
      if (data.size() < sizeof(uint64_t)) break;
      *field = LoadLittleEndian<uint64_t>(data);
      data = data.subspan(sizeof(uint64_t));
    }
    return absl::OkStatus();
  }
  return Invalid(absl::StrCat("entry ", Quoted(entry->name), " lacks its 64-bit sizes"));
}

// The entry at the start of `rest`, which loses its bytes.
absl::StatusOr<ZipEntry> TakeEntry(std::span<const std::byte>* rest) {
  if (rest->size() < kCentralHeaderBytes || LoadLittleEndian<uint32_t>(*rest) != kCentralHeader) {
    return Invalid("its directory is damaged");
  }
  const size_t name_bytes = LoadLittleEndian<uint16_t>(*rest, 28),
               extra_bytes = LoadLittleEndian<uint16_t>(*rest, 30),
               comment_bytes = LoadLittleEndian<uint16_t>(*rest, 32);
  if (rest->size() - kCentralHeaderBytes < name_bytes + extra_bytes + comment_bytes) {
    return Invalid("its directory is cut short");
  }
  ZipEntry entry;
  entry.flags = LoadLittleEndian<uint16_t>(*rest, 8);
  entry.method = LoadLittleEndian<uint16_t>(*rest, 10);
  entry.compressed_size = LoadLittleEndian<uint32_t>(*rest, 20);
  entry.size = LoadLittleEndian<uint32_t>(*rest, 24);
  entry.header_offset = LoadLittleEndian<uint32_t>(*rest, 42);
  const auto variable = rest->subspan(kCentralHeaderBytes);
  entry.name.assign(reinterpret_cast<const char*>(variable.data()), name_bytes);
  RETURN_IF_ERROR(ReadZip64Extra(variable.subspan(name_bytes, extra_bytes), &entry));
  *rest = variable.subspan(name_bytes + extra_bytes + comment_bytes);
  return entry;
}

}  // namespace

absl::StatusOr<ZipDirectory> ZipDirectory::Read(const ByteSource& file) {
  ASSIGN_OR_RETURN(const End end, ReadEnd(file));
  if (end.directory_bytes > kMaxDirectoryBytes) {
    return Invalid(absl::StrCat("its directory of ", end.directory_bytes, " bytes is over ",
                                kMaxDirectoryBytes));
  }
  if (end.directory_start > end.position ||
      end.directory_bytes > end.position - end.directory_start) {
    return Invalid(absl::StrCat("its directory, ", end.directory_bytes, " bytes at ",
                                end.directory_start, ", is not before its end record"));
  }
  if (end.entries > end.directory_bytes / kCentralHeaderBytes) {
    return Invalid(absl::StrCat(end.entries, " entries do not fit a directory of ",
                                end.directory_bytes, " bytes"));
  }
  ASSIGN_OR_RETURN(const auto bytes, ReadRange(file, {end.directory_start, end.directory_bytes}));
  ZipDirectory directory;
  directory.directory_start_ = end.directory_start;
  directory.entries_.reserve(end.entries);  // views of its names are kept
  std::span<const std::byte> rest(bytes);
  for (uint64_t i = 0; i < end.entries; ++i) {
    ASSIGN_OR_RETURN(ZipEntry entry, TakeEntry(&rest));
    const ZipEntry& added = directory.entries_.emplace_back(std::move(entry));
    if (!directory.by_name_.emplace(added.name, i).second) {
      return Invalid(absl::StrCat("duplicate entry ", Quoted(added.name)));
    }
  }
  return directory;
}

const ZipEntry* ZipDirectory::Find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

absl::StatusOr<ByteRange> ZipDirectory::Locate(const ByteSource& file,
                                               const ZipEntry& entry) const {
  const auto wrong = [&](std::string_view what) {
    return Invalid(absl::StrCat("entry ", Quoted(entry.name), " ", what));
  };
  if ((entry.flags & kEncryptedFlag) != 0) return wrong("is encrypted");
  if (entry.method != 0 || entry.compressed_size != entry.size) {
    return wrong("is compressed; PyTorch stores its entries as they are");
  }
  if (entry.header_offset > directory_start_ ||
      directory_start_ - entry.header_offset < kLocalHeaderBytes) {
    return wrong("begins past the directory's start");
  }
  ASSIGN_OR_RETURN(const auto header, ReadRange(file, {entry.header_offset, kLocalHeaderBytes}));
  const size_t name_bytes = LoadLittleEndian<uint16_t>(header, 26);
  if (LoadLittleEndian<uint32_t>(header) != kLocalHeader || name_bytes != entry.name.size()) {
    return wrong("has no local header of its own");
  }
  const uint64_t begin =
      entry.header_offset + kLocalHeaderBytes + name_bytes + LoadLittleEndian<uint16_t>(header, 28);
  if (begin > directory_start_ || entry.size > directory_start_ - begin) {
    return wrong(absl::StrCat("of ", entry.size, " bytes does not end before the directory"));
  }
  std::string name(name_bytes, '\0');
  RETURN_IF_ERROR(file.ReadAt(entry.header_offset + kLocalHeaderBytes,
                              std::as_writable_bytes(std::span(name))));
  if (name != entry.name) return wrong("has no local header of its own");
  return ByteRange{begin, entry.size};
}

}  // namespace distorch
