#include "lib/checkpoint/pickle_calls.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/safetensors.h"

namespace distorch {
namespace {

using Kind = PickleValue::Kind;

constexpr std::string_view kAllowed =
    "a checkpoint may call torch's tensor builders, collections.OrderedDict and numpy's scalars";

// Their results are of no use to us, and making them has no effect.
constexpr std::string_view kInert[] = {
    "_codecs.encode",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "torch.Size",
    "torch.device",
};

struct TypeName {
  std::string_view name;
  DType dtype;
};

constexpr TypeName kStorageTypes[] = {
    {"Bool", DType::kBool},  {"Byte", DType::kU8},       {"Char", DType::kI8},
    {"Short", DType::kI16},  {"Int", DType::kI32},       {"Long", DType::kI64},
    {"Half", DType::kF16},   {"BFloat16", DType::kBF16}, {"Float", DType::kF32},
    {"Double", DType::kF64},
};
constexpr TypeName kTensorTypes[] = {
    {"bool", DType::kBool},
    {"uint8", DType::kU8},
    {"int8", DType::kI8},
    {"int16", DType::kI16},
    {"int32", DType::kI32},
    {"int64", DType::kI64},
    {"float8_e4m3fn", DType::kF8E4M3},
    {"float8_e5m2", DType::kF8E5M2},
    {"float16", DType::kF16},
    {"bfloat16", DType::kBF16},
    {"float32", DType::kF32},
    {"float64", DType::kF64},
};

absl::Status Invalid(std::string_view message) { return absl::InvalidArgumentError(message); }

absl::StatusOr<DType> TypeNamed(std::span<const TypeName> types, std::string_view name,
                                std::string_view whole) {
  for (const TypeName& type : types) {
    if (type.name == name) return type.dtype;
  }
  return Invalid(absl::StrCat("a tensor of the type ", Quoted(whole), ", which is not supported"));
}

const PickleValue* ItemOf(const Pickle& pickle, const PickleValue& tuple, size_t i, Kind kind) {
  if (i >= tuple.items.size()) return nullptr;
  const PickleValue& item = pickle.values[tuple.items[i]];
  return item.kind == kind ? &item : nullptr;
}

// A tuple of sizes or strides: integers that are not negative.
absl::StatusOr<std::vector<int64_t>> Sizes(const Pickle& pickle, const PickleValue* tuple) {
  if (tuple == nullptr) return Invalid("a tensor whose shape or strides are no tuple");
  if (tuple->items.size() > kMaxTensorDims) {
    return Invalid(absl::StrCat("a tensor of over ", kMaxTensorDims, " dimensions"));
  }
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < tuple->items.size(); ++i) {
    const PickleValue* size = ItemOf(pickle, *tuple, i, Kind::kInt);
    if (size == nullptr || size->integer < 0) {
      return Invalid("a tensor whose shape or strides are no sizes");
    }
    sizes.push_back(size->integer);
  }
  return sizes;
}

// _rebuild_tensor(storage, offset, size, stride)
// _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])
// _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])
absl::StatusOr<PickleValue> RebuildTensor(const PickleValue& arguments, bool has_dtype,
                                          Pickle* pickle) {
  constexpr size_t kDTypeArgument = 6;
  const PickleValue* storage = ItemOf(*pickle, arguments, 0, Kind::kStorage);
  const PickleValue* offset = ItemOf(*pickle, arguments, 1, Kind::kInt);
  if (storage == nullptr) return Invalid("a tensor without a storage");
  if (offset == nullptr || offset->integer < 0) return Invalid("a tensor without an offset");
  if (pickle->tensors.size() == kMaxPickleTensors) {
    return Invalid(absl::StrCat("over ", kMaxPickleTensors, " tensors"));
  }
  PickleTensor tensor;
  tensor.storage = static_cast<size_t>(storage->integer);
  tensor.offset = static_cast<uint64_t>(offset->integer);
  ASSIGN_OR_RETURN(tensor.shape, Sizes(*pickle, ItemOf(*pickle, arguments, 2, Kind::kTuple)));
  ASSIGN_OR_RETURN(tensor.strides, Sizes(*pickle, ItemOf(*pickle, arguments, 3, Kind::kTuple)));
  if (tensor.shape.size() != tensor.strides.size()) {
    return Invalid("a tensor with as many strides as it has no dimensions");
  }
  if (has_dtype) {
    const PickleValue* dtype = ItemOf(*pickle, arguments, kDTypeArgument, Kind::kGlobal);
    if (dtype == nullptr) return Invalid("a tensor without a type");
    absl::string_view name = dtype->text;
    absl::ConsumePrefix(&name, "torch.");
    ASSIGN_OR_RETURN(tensor.dtype, TypeNamed(kTensorTypes, name, dtype->text));
  } else {
    const auto& dtype = pickle->storages[tensor.storage].dtype;
    if (!dtype) return Invalid("a tensor without a type");
    tensor.dtype = *dtype;
  }
  pickle->tensors.push_back(std::move(tensor));
  return PickleValue{.kind = Kind::kTensor,
                     .integer = static_cast<int64_t>(pickle->tensors.size() - 1)};
}

}  // namespace

absl::StatusOr<PickleValue> CallGlobal(uint32_t callable, uint32_t arguments_index,
                                       Pickle* pickle) {
  const PickleValue& function = pickle->values[callable];
  const PickleValue& arguments = pickle->values[arguments_index];
  if (function.kind != Kind::kGlobal) return Invalid("it calls what is no function");
  if (arguments.kind != Kind::kTuple) return Invalid("it calls with arguments that are no tuple");
  const std::string& name = function.text;
  if (name == "torch._utils._rebuild_tensor" || name == "torch._utils._rebuild_tensor_v2")
    return RebuildTensor(arguments, false, pickle);
  if (name == "torch._utils._rebuild_tensor_v3") return RebuildTensor(arguments, true, pickle);
  if (name == "torch._utils._rebuild_parameter") {
    const PickleValue* tensor = ItemOf(*pickle, arguments, 0, Kind::kTensor);
    if (tensor == nullptr) return Invalid("a parameter of what is no tensor");
    return *tensor;
  }
  if (name == "collections.OrderedDict") {
    if (arguments.items.empty()) return PickleValue{.kind = Kind::kDict};
    return Invalid("an OrderedDict that is made with items");  // as Python 2 wrote it
  }
  if (std::find(std::begin(kInert), std::end(kInert), name) != std::end(kInert)) {
    return PickleValue{};
  }
  return Invalid(absl::StrCat("it calls ", Quoted(name), ", which is not allowed; ", kAllowed));
}

absl::StatusOr<PickleValue> StorageOfPersistentId(uint32_t id_index, Pickle* pickle) {
  const PickleValue& id = pickle->values[id_index];
  const PickleValue* const tag = ItemOf(*pickle, id, 0, Kind::kText);
  const PickleValue* const type = ItemOf(*pickle, id, 1, Kind::kGlobal);
  const PickleValue* const key = ItemOf(*pickle, id, 2, Kind::kText);
  const PickleValue* const elements = ItemOf(*pickle, id, 4, Kind::kInt);
  if (id.kind != Kind::kTuple || tag == nullptr || tag->text != "storage" || type == nullptr ||
      key == nullptr || elements == nullptr || elements->integer < 0) {
    return Invalid("a persistent id that is no storage");
  }
  if (id.items.size() > 5 && pickle->values[id.items[5]].kind != Kind::kOpaque)
    return Invalid("a storage that is a view of another, as PyTorch before 0.4 saved");
  // Names may be shared, so what copies one must not be long.
  if (key->text.size() > kMaxPickleNameBytes) return Invalid("a storage with a long key");
  PickleStorage storage{.key = key->text, .elements = static_cast<uint64_t>(elements->integer)};
  if (type->text != "torch.storage.UntypedStorage") {
    absl::string_view name = type->text;
    if (!absl::ConsumePrefix(&name, "torch.") || !absl::ConsumeSuffix(&name, "Storage")) name = "";
    ASSIGN_OR_RETURN(storage.dtype, TypeNamed(kStorageTypes, name, type->text));
  }
  pickle->storages.push_back(std::move(storage));
  return PickleValue{.kind = Kind::kStorage,
                     .integer = static_cast<int64_t>(pickle->storages.size() - 1)};
}

}  // namespace distorch
