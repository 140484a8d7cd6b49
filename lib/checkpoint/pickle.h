// Reads the pickles that torch.save writes, and executes nothing: a pickle is a program for a stack
// machine that may call any function, so this is a machine of our own that knows the opcodes of
// protocols 2 to 5 that build values, and calls of a fixed list of names, which it answers itself.
// The opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
#ifndef LIB_CHECKPOINT_PICKLE_H_
#define LIB_CHECKPOINT_PICKLE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/base/dtype.h"

namespace distorch {

inline constexpr uint64_t kMaxPickleBytes = 64 << 20;
// Of values, of entries of the memo and of the stack; a training state of SDXL has a tenth.
inline constexpr std::size_t kMaxPickleValues = 2'000'000;
inline constexpr std::size_t kMaxPickleTensors = 100'000;
// Of a global's module and name, and of a storage's key.
inline constexpr std::size_t kMaxPickleNameBytes = 256;

// A storage that the pickle refers to by persistent id ("storage", type, key, location, numel), or,
// before PyTorch 1.6, the same with None behind it.
struct PickleStorage {
  std::string key;
  std::optional<DType> dtype;  // absent: bytes, the tensors say what they are
  uint64_t elements = 0;       // bytes without a dtype
};

// What torch._utils._rebuild_tensor, _v2 or _v3 is asked for. Nothing is checked against the
// storage but that there is one; numbers are not negative.
struct PickleTensor {
  std::size_t storage = 0;  // index into Pickle::storages
  DType dtype = DType::kF32;
  uint64_t offset = 0;  // elements
  std::vector<int64_t> shape, strides;
};

struct PickleValue {
  // kText: a string or bytes. kGlobal: a name, never resolved. kOpaque: what no tensor needs.
  enum class Kind { kOpaque, kInt, kText, kList, kTuple, kDict, kGlobal, kStorage, kTensor };

  Kind kind = Kind::kOpaque;
  int64_t integer = 0;          // kInt; kStorage, kTensor: index into Pickle's lists
  std::string text;             // kText; kGlobal: "module.name"
  std::vector<uint32_t> items;  // kList, kTuple; kDict: key, value, key, value, …
};

// The value graph. Values refer to others by index; references may be shared, or form a cycle.
struct Pickle {
  std::vector<PickleValue> values;
  std::vector<PickleStorage> storages;
  std::vector<PickleTensor> tensors;
  uint32_t root = 0;
  std::size_t size = 0;  // bytes that it takes; what follows was not looked at
};

// Input is hostile: time and memory are linear in bytes.size() and bounded by the limits above.
// INVALID_ARGUMENT, with the byte where it happened, for a pickle that calls a name that is not
// allowed (the message has it), an opcode outside of the list, a malformed or cut pickle, too many
// values, a tensor of a type we have not.
absl::StatusOr<Pickle> ParsePickle(std::span<const std::byte> bytes);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_PICKLE_H_
