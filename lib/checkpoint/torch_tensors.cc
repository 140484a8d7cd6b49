#include "lib/checkpoint/torch_tensors.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/strided_tensor.h"

namespace distorch {
namespace {

using Kind = PickleValue::Kind;

constexpr int kMaxDictDepth = 16;
// Shared dictionaries multiply what is walked.
constexpr size_t kMaxWalkedEntries = 200'000;
constexpr size_t kMaxNameBytes = 512;
constexpr uint64_t kMostElements = uint64_t{1} << 60;  // of 8 bytes

absl::Status Invalid(std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("PyTorch file: ", message));
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

absl::StatusOr<TensorInfo> Locate(NamedRef ref, const Pickle& pickle, StorageLocator locate) {
  const PickleTensor& tensor = pickle.tensors[ref.tensor];
  const std::string where = absl::StrCat("tensor ", Quoted(ref.name));
  const uint64_t size = DTypeSize(tensor.dtype);
  uint64_t elements = 1, begin = 0, end = 0;
  bool overflows = false;
  for (const int64_t dim : tensor.shape) {
    // A later 0 does not excuse an overflow.
    overflows |= __builtin_mul_overflow(elements, static_cast<uint64_t>(dim), &elements);
    if (overflows || elements > kMostElements) {
      return Invalid(absl::StrCat(where, ": shape ", ShapeString(tensor.shape), " overflows"));
    }
  }
  const bool contiguous = elements == 0 || IsContiguous(tensor.shape, tensor.strides);
  const uint64_t span =
      contiguous ? elements : SpanOf(tensor.shape, tensor.strides).value_or(kMostElements);
  if (span < elements) {
    return Invalid(absl::StrCat(where, " of shape ", ShapeString(tensor.shape), " has strides ",
                                ShapeString(tensor.strides),
                                "; elements that lie on each other are not supported"));
  }
  ASSIGN_OR_RETURN(const ByteRange storage, locate(pickle.storages[tensor.storage]));
  if (__builtin_mul_overflow(tensor.offset, size, &begin) ||
      __builtin_add_overflow(begin, span * size, &end) || end > storage.size) {
    return Invalid(absl::StrCat(where, ": ", span * size, " bytes from element ", tensor.offset,
                                " on are not inside its storage of ", storage.size, " bytes"));
  }
  TensorInfo info;
  info.name = std::move(ref.name);
  info.dtype = tensor.dtype;
  info.shape = tensor.shape;
  info.offset = storage.begin + begin;
  info.bytes = elements * size;
  if (contiguous) return info;
  for (size_t i = 0; i < tensor.shape.size(); ++i)
    info.strides.push_back(tensor.shape[i] == 1 ? 0 : tensor.strides[i]);
  return info;
}

}  // namespace

absl::StatusOr<TensorIndex> IndexTensors(const Pickle& pickle, StorageLocator locate) {
  const PickleValue& root = pickle.values[pickle.root];
  if (root.kind != Kind::kDict) {
    return Invalid("it holds no dictionary of tensors; save model.state_dict()");
  }
  TensorWalk walk(pickle);
  RETURN_IF_ERROR(walk.Enter(StateDict(pickle, root), "", 1));
  std::vector<TensorInfo> tensors;
  for (NamedRef& ref : walk.TakeFound()) {
    ASSIGN_OR_RETURN(TensorInfo info, Locate(std::move(ref), pickle, locate));
    tensors.push_back(std::move(info));
  }
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  return TensorIndex(std::move(tensors), {});
}

}  // namespace distorch
