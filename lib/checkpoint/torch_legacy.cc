#include "lib/checkpoint/torch_legacy.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/little_endian.h"
#include "lib/checkpoint/pickle.h"
#include "lib/checkpoint/torch_tensors.h"

namespace distorch {
namespace {

using Kind = PickleValue::Kind;

constexpr std::size_t kStartBytes = 64;
constexpr int64_t kProtocol = 1001;
constexpr uint64_t kFirstRead = 64 << 10;

absl::Status Invalid(std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("PyTorch file: ", message));
}

// Pickles of a file from its start on. Where one ends, only reading it shows.
class PickleReader {
 public:
  explicit PickleReader(const ByteSource& file) : file_(file) {}

  uint64_t position() const { return position_; }

  absl::StatusOr<Pickle> Next() {
    const uint64_t most = std::min<uint64_t>(file_.size() - position_, kMaxPickleBytes);
    for (uint64_t size = std::min(kFirstRead, most);; size = std::min(size * 16, most)) {
      std::vector<std::byte> bytes(size);
      RETURN_IF_ERROR(file_.ReadAt(position_, bytes));
      absl::StatusOr<Pickle> pickle = ParsePickle(bytes);
      if (!pickle.ok() && size < most) continue;  // it may have been cut
      if (pickle.ok()) position_ += pickle->size;
      return pickle;
    }
  }

 private:
  const ByteSource& file_;
  uint64_t position_ = 0;
};

absl::Status CheckByteOrder(const Pickle& machine) {
  const PickleValue& root = machine.values[machine.root];
  if (root.kind != Kind::kDict) return Invalid("its third pickle is no dictionary");
  for (size_t i = 0; i + 1 < root.items.size(); i += 2) {
    const PickleValue& key = machine.values[root.items[i]];
    const PickleValue& value = machine.values[root.items[i + 1]];
    if (key.kind == Kind::kText && key.text == "little_endian" && value.integer == 0)
      return Invalid("the byte order is big-endian; only little-endian files are supported");
  }
  return absl::OkStatus();
}

using Storages = absl::flat_hash_map<std::string, const PickleStorage*>;

absl::StatusOr<Storages> ByKey(const Pickle& object) {
  Storages storages;
  for (const PickleStorage& storage : object.storages) {
    const PickleStorage& first = *storages.emplace(storage.key, &storage).first->second;
    if (first.dtype != storage.dtype || first.elements != storage.elements) {
      return Invalid(
          absl::StrCat("the storage ", Quoted(storage.key), " is of two types or sizes"));
    }
  }
  return storages;
}

// Where the storages' bytes are that follow `position`, in the order of the list `keys`.
absl::StatusOr<absl::flat_hash_map<std::string, ByteRange>> LocateStorages(
    const ByteSource& file, uint64_t position, const Pickle& keys, const Storages& storages) {
  absl::flat_hash_map<std::string, ByteRange> located;
  const PickleValue& list = keys.values[keys.root];
  if (list.kind != Kind::kList) return Invalid("its fifth pickle is no list of storages");
  for (const uint32_t item : list.items) {
    const std::string& key = keys.values[item].text;
    const auto storage = storages.find(key);
    if (storage == storages.end() || located.contains(key)) {
      return Invalid(absl::StrCat("the storage ", Quoted(key.substr(0, kMaxPickleNameBytes)),
                                  " is there twice, or of no tensor"));
    }
    std::array<std::byte, sizeof(uint64_t)> head = {};
    uint64_t bytes = 0;
    if (file.size() - position < head.size()) return Invalid("it is cut short");
    RETURN_IF_ERROR(file.ReadAt(position, head));
    position += head.size();
    const auto elements = LoadLittleEndian<uint64_t>(head);
    const auto& dtype = storage->second->dtype;
    if (elements != storage->second->elements) {
      return Invalid(absl::StrCat("the storage ", Quoted(key), " has ", elements,
                                  " elements; the tensors in it say ", storage->second->elements));
    }
    if (__builtin_mul_overflow(elements, dtype ? DTypeSize(*dtype) : 1, &bytes) ||
        bytes > file.size() - position) {
      return Invalid(absl::StrCat("the storage ", Quoted(key), " of ", elements,
                                  " elements does not end inside the file"));
    }
    located.emplace(key, ByteRange{position, bytes});
    position += bytes;
  }
  return located;
}

}  // namespace

bool IsTorchLegacy(std::string_view start) {
  using namespace std::string_view_literals;
  // PROTO, and LONG1 with the number 0x1950A86A20F9469CFC6C; a FRAME may stand between them.
  return absl::StartsWith(start, "\x80"sv) &&
         absl::StrContains(start.substr(0, kStartBytes),
                           "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."sv);
}

absl::StatusOr<TensorIndex> ReadTorchLegacy(const ByteSource& file) {
  std::string start(std::min<uint64_t>(file.size(), kStartBytes), '\0');
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(start))));
  if (!IsTorchLegacy(start)) return Invalid("it does not begin with PyTorch's magic number");
  PickleReader pickles(file);
  RETURN_IF_ERROR(pickles.Next().status());  // the number
  ASSIGN_OR_RETURN(const Pickle protocol, pickles.Next());
  if (const PickleValue& root = protocol.values[protocol.root];
      root.kind != Kind::kInt || root.integer != kProtocol) {
    return Invalid(absl::StrCat("its protocol is not ", kProtocol));
  }
  ASSIGN_OR_RETURN(const Pickle machine, pickles.Next());
  RETURN_IF_ERROR(CheckByteOrder(machine));
  ASSIGN_OR_RETURN(const Pickle object, pickles.Next());
  ASSIGN_OR_RETURN(const Pickle keys, pickles.Next());
  ASSIGN_OR_RETURN(const Storages storages, ByKey(object));
  ASSIGN_OR_RETURN(const auto located, LocateStorages(file, pickles.position(), keys, storages));
  return IndexTensors(object, [&](const PickleStorage& storage) -> absl::StatusOr<ByteRange> {
    if (const auto found = located.find(storage.key); found != located.end()) return found->second;
    return Invalid(absl::StrCat("no bytes for the storage ", Quoted(storage.key)));
  });
}

}  // namespace distorch
