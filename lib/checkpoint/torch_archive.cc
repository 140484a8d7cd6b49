#include "lib/checkpoint/torch_archive.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/pickle.h"
#include "lib/checkpoint/torch_tensors.h"
#include "lib/checkpoint/zip_directory.h"

namespace distorch {
namespace {

constexpr std::string_view kPickleName = "data.pkl";

absl::Status Invalid(std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("PyTorch archive: ", message));
}

class Archive {
 public:
  explicit Archive(const ByteSource& file, ZipDirectory directory, std::string folder)
      : file_(file), directory_(std::move(directory)), folder_(std::move(folder)) {}

  static absl::StatusOr<Archive> Open(const ByteSource& file) {
    ASSIGN_OR_RETURN(ZipDirectory directory, ZipDirectory::Read(file));
    for (const ZipEntry& entry : directory.entries()) {
      if (entry.name != kPickleName && !absl::EndsWith(entry.name, "/data.pkl")) continue;
      std::string folder = entry.name.substr(0, entry.name.size() - kPickleName.size());
      return Archive(file, std::move(directory), std::move(folder));
    }
    return Invalid("no entry data.pkl: a zip file, but not one of torch.save");
  }

  absl::Status CheckByteOrder() const {
    const ZipEntry* entry = directory_.Find(folder_ + "byteorder");
    if (entry == nullptr) return absl::OkStatus();  // older than the entry, and little-endian
    ASSIGN_OR_RETURN(const std::string order, ReadEntry(*entry, 16));
    if (order == "little") return absl::OkStatus();
    return Invalid(
        absl::StrCat("the byte order is ", Quoted(order), "; only 'little' is supported"));
  }

  absl::StatusOr<Pickle> ReadPickle() const {
    ASSIGN_OR_RETURN(
        const std::string bytes,
        ReadEntry(*directory_.Find(folder_ + std::string(kPickleName)), kMaxPickleBytes));
    return ParsePickle(std::as_bytes(std::span(bytes)));
  }

  // Looked up once a storage.
  absl::StatusOr<ByteRange> Storage(const std::string& key) {
    if (const auto found = storages_.find(key); found != storages_.end()) return found->second;
    const ZipEntry* entry = directory_.Find(absl::StrCat(folder_, "data/", key));
    if (entry == nullptr) return Invalid(absl::StrCat("no entry for the storage ", Quoted(key)));
    ASSIGN_OR_RETURN(const ByteRange range, directory_.Locate(file_, *entry));
    storages_.emplace(key, range);
    return range;
  }

  absl::Status CheckOverlaps() const {
    std::vector<std::pair<ByteRange, std::string_view>> ranges;
    for (const auto& [key, range] : storages_) ranges.emplace_back(range, key);
    std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) {
      return std::tie(a.first.begin, a.first.size) < std::tie(b.first.begin, b.first.size);
    });
    for (size_t i = 1; i < ranges.size(); ++i) {
      const ByteRange& before = ranges[i - 1].first;
      if (before.begin + before.size > ranges[i].first.begin) {
        return Invalid(absl::StrCat("the storages ", Quoted(ranges[i - 1].second), " and ",
                                    Quoted(ranges[i].second), " overlap"));
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<std::string> ReadEntry(const ZipEntry& entry, uint64_t max_bytes) const {
    ASSIGN_OR_RETURN(const ByteRange range, directory_.Locate(file_, entry));
    if (range.size > max_bytes) {
      return Invalid(absl::StrCat("entry ", Quoted(entry.name), " has ", range.size,
                                  " bytes; the most is ", max_bytes));
    }
    std::string bytes(range.size, '\0');
    RETURN_IF_ERROR(file_.ReadAt(range.begin, std::as_writable_bytes(std::span(bytes))));
    return bytes;
  }

  const ByteSource& file_;
  ZipDirectory directory_;
  std::string folder_;  // "archive/"
  absl::flat_hash_map<std::string, ByteRange> storages_;
};

}  // namespace

absl::StatusOr<TensorIndex> ReadTorchArchive(const ByteSource& file) {
  ASSIGN_OR_RETURN(Archive archive, Archive::Open(file));
  RETURN_IF_ERROR(archive.CheckByteOrder());
  ASSIGN_OR_RETURN(const Pickle pickle, archive.ReadPickle());
  ASSIGN_OR_RETURN(TensorIndex index, IndexTensors(pickle, [&](const PickleStorage& storage) {
                     return archive.Storage(storage.key);
                   }));
  RETURN_IF_ERROR(archive.CheckOverlaps());
  return index;
}

}  // namespace distorch
