#include "lib/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

absl::Status OpenError(int error, const std::string& path) {
  const std::string message = absl::StrCat("cannot open ", Quoted(path));
  if (error == ENOTDIR) return absl::NotFoundError(absl::StrCat(message, ": not a directory"));
  return absl::ErrnoToStatus(error, message);
}

int64_t Modified(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot open ", Quoted(path), ": a NUL in the path"));
  }
  // O_NONBLOCK: opening a FIFO must not wait for its writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    // A socket cannot be opened at all; anything else that is not a file is found out below.
    if (error == ENXIO) {
      return absl::InvalidArgumentError(absl::StrCat(Quoted(path), " is not a regular file"));
    }
    return OpenError(error, path);
  }
  MappedFile file(path, fd);
  struct stat info;
  if (fstat(fd, &info) != 0) return OpenError(errno, path);
  file.modified_ = Modified(info);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(path), " is not a regular file"));
  }
  if (info.st_size == 0) return file;
  const auto size = static_cast<uint64_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", Quoted(path)));
  }
  file.data_ = static_cast<const std::byte*>(data);
  file.size_ = size;
  return file;
}

MappedFile::MappedFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      modified_(other.modified_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(modified_, other.modified_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0) close(fd_);
}

absl::Status MappedFile::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  bool inside = offset <= size_ && out.size() <= size_ - offset;
  std::size_t done = 0;
  while (inside && done < out.size()) {
    const ssize_t count =
        pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (count < 0) {
      if (errno == EINTR) continue;
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", Quoted(path_)));
    }
    inside = count > 0;
    done += static_cast<std::size_t>(count);
  }
  if (!inside) {
    return absl::DataLossError(absl::StrCat(Quoted(path_), " ends before byte ",
                                            offset + out.size(), "; it had ", size_,
                                            " bytes when it was opened"));
  }
  // After the read: what was read before the file changed is whole.
  return CheckUnchanged();
}

absl::Status MappedFile::CheckUnchanged() const {
  struct stat now;
  if (fstat(fd_, &now) == 0 && Modified(now) == modified_) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(Quoted(path_), " was written to since it was opened: load it again"));
}

}  // namespace distorch
