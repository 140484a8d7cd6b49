#include "lib/checkpoint/torch_archive.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/pickle.h"
#include "lib/checkpoint/zip_directory.h"

namespace distorch {
namespace {

using Kind = PickleValue::Kind;

constexpr std::string_view kPickleName = "data.pkl";
constexpr int kMaxDictDepth = 16;
// Shared dictionaries multiply what is walked.
constexpr size_t kMaxWalkedEntries = 200'000;
constexpr size_t kMaxNameBytes = 512;

absl::Status Invalid(std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("PyTorch archive: ", message));
}

// --- from the saved object to names ---

struct NamedRef {
  std::string name;
  size_t tensor;  // index into Pickle::tensors
};

const PickleValue* DictEntry(const Pickle& pickle, const PickleValue& dict, std::string_view key) {
  for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const PickleValue& name = pickle.values[dict.items[i]];
    const PickleValue& value = pickle.values[dict.items[i + 1]];
    if (name.kind == Kind::kText && name.text == key && value.kind == Kind::kDict) return &value;
  }
  return nullptr;
}

// Where the reference looks for a model's weights.
const PickleValue& StateDict(const Pickle& pickle, const PickleValue& root) {
  if (const PickleValue* state = DictEntry(pickle, root, "state_dict")) return *state;
  if (root.items.size() != 2 || DictEntry(pickle, root, "string_to_param") != nullptr) return root;
  const PickleValue& only = pickle.values[root.items[1]];
  return only.kind == Kind::kDict ? only : root;
}

class TensorWalk {
 public:
  explicit TensorWalk(const Pickle& pickle) : pickle_(pickle) {}

  absl::Status Enter(const PickleValue& dict, const std::string& prefix, int depth) {
    if (depth > kMaxDictDepth) {
      return Invalid(absl::StrCat("dictionaries in over ", kMaxDictDepth, " levels"));
    }
    for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
      if (++walked_ > kMaxWalkedEntries) {
        return Invalid(absl::StrCat("over ", kMaxWalkedEntries, " entries in its dictionaries"));
      }
      const PickleValue& key = pickle_.values[dict.items[i]];
      const PickleValue& value = pickle_.values[dict.items[i + 1]];
      if (value.kind != Kind::kDict && value.kind != Kind::kTensor) continue;
      if (key.kind != Kind::kText && key.kind != Kind::kInt) continue;
      if (prefix.size() + key.text.size() > kMaxNameBytes)
        return Invalid("a tensor's name is long");
      std::string name =
          key.kind == Kind::kText ? prefix + key.text : absl::StrCat(prefix, key.integer);
      if (value.kind == Kind::kDict) {
        RETURN_IF_ERROR(Enter(value, name + ".", depth + 1));
      } else {
        RETURN_IF_ERROR(Add(std::move(name), static_cast<size_t>(value.integer)));
      }
    }
    return absl::OkStatus();
  }

  std::vector<NamedRef> TakeFound() { return std::move(found_); }

 private:
  absl::Status Add(std::string name, size_t tensor) {
    if (Utf8PrefixLength(name) != name.size()) {
      return Invalid(absl::StrCat("the tensor name ", Quoted(name), " is not UTF-8"));
    }
    if (!names_.insert(name).second) {
      return Invalid(absl::StrCat("duplicate name ", Quoted(name)));
    }
    found_.push_back({std::move(name), tensor});
    return absl::OkStatus();
  }

  const Pickle& pickle_;
  size_t walked_ = 0;
  std::vector<NamedRef> found_;
  absl::flat_hash_set<std::string> names_;
};

// --- from names to bytes ---

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

// Row-major without gaps. The stride of a dimension of one element says nothing.
bool IsContiguous(const PickleTensor& tensor) {
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

absl::StatusOr<TensorInfo> Locate(NamedRef ref, const Pickle& pickle, Archive* archive) {
  const PickleTensor& tensor = pickle.tensors[ref.tensor];
  const std::string where = absl::StrCat("tensor ", Quoted(ref.name));
  const uint64_t size = DTypeSize(tensor.dtype);
  uint64_t elements = 1, begin = 0, bytes = 0, end = 0;
  bool overflows = false;
  for (const int64_t dim : tensor.shape) {
    // A later 0 does not excuse an overflow.
    overflows |= __builtin_mul_overflow(elements, static_cast<uint64_t>(dim), &elements);
    if (overflows || elements > INT64_MAX / sizeof(double)) {
      return Invalid(absl::StrCat(where, ": shape ", ShapeString(tensor.shape), " overflows"));
    }
  }
  bytes = elements * size;
  if (elements > 0 && !IsContiguous(tensor)) {
    return Invalid(absl::StrCat(where, " of shape ", ShapeString(tensor.shape), " has strides ",
                                ShapeString(tensor.strides),
                                "; only contiguous tensors are supported"));
  }
  ASSIGN_OR_RETURN(const ByteRange storage, archive->Storage(pickle.storages[tensor.storage].key));
  if (__builtin_mul_overflow(tensor.offset, size, &begin) ||
      __builtin_add_overflow(begin, bytes, &end) || end > storage.size) {
    return Invalid(absl::StrCat(where, ": ", bytes, " bytes from element ", tensor.offset,
                                " on are not inside its storage of ", storage.size, " bytes"));
  }
  TensorInfo info;
  info.name = std::move(ref.name);
  info.dtype = tensor.dtype;
  info.shape = tensor.shape;
  info.offset = storage.begin + begin;
  info.bytes = bytes;
  return info;
}

}  // namespace

absl::StatusOr<TensorIndex> ReadTorchArchive(const ByteSource& file) {
  ASSIGN_OR_RETURN(Archive archive, Archive::Open(file));
  RETURN_IF_ERROR(archive.CheckByteOrder());
  ASSIGN_OR_RETURN(const Pickle pickle, archive.ReadPickle());
  const PickleValue& root = pickle.values[pickle.root];
  if (root.kind != Kind::kDict) {
    return Invalid("it holds no dictionary of tensors; save model.state_dict()");
  }
  TensorWalk walk(pickle);
  RETURN_IF_ERROR(walk.Enter(StateDict(pickle, root), "", 1));
  std::vector<TensorInfo> tensors;
  for (NamedRef& ref : walk.TakeFound()) {
    ASSIGN_OR_RETURN(TensorInfo info, Locate(std::move(ref), pickle, &archive));
    tensors.push_back(std::move(info));
  }
  RETURN_IF_ERROR(archive.CheckOverlaps());
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  return TensorIndex(std::move(tensors), {});
}

}  // namespace distorch
