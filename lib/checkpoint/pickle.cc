#include "lib/checkpoint/pickle.h"

#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/little_endian.h"
#include "lib/checkpoint/pickle_calls.h"

namespace distorch {
namespace {

using Kind = PickleValue::Kind;

// Named as pickletools names them.
enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kEmptyList = ']',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kDict = 'd',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kList = 'l',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyTuple = ')',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kLong4 = 0x8b,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
  kByteArray8 = 0x96,
};

constexpr uint8_t kMinProtocol = 2, kMaxProtocol = 5;

class Machine {
 public:
  explicit Machine(std::span<const std::byte> bytes) : bytes_(bytes) {}

  absl::StatusOr<Pickle> Run() {
    bool stopped = false;
    while (!stopped) {
      const size_t at = position_;
      if (absl::Status status = Step(&stopped); !status.ok()) {
        return absl::Status(status.code(),
                            absl::StrCat("pickle: ", status.message(), " (at byte ", at, ")"));
      }
    }
    pickle_.size = position_;
    return std::move(pickle_);
  }

 private:
  static absl::Status Invalid(std::string_view message) {
    return absl::InvalidArgumentError(message);
  }

  // --- input ---

  absl::StatusOr<std::span<const std::byte>> Take(uint64_t count) {
    if (count > bytes_.size() - position_) return Invalid("it is cut short");
    const auto taken = bytes_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  template <typename T>
  absl::StatusOr<T> TakeNumber() {
    ASSIGN_OR_RETURN(const auto bytes, Take(sizeof(T)));
    return LoadLittleEndian<T>(bytes);
  }

  // A length of type T and as many bytes.
  template <typename T>
  absl::StatusOr<std::string> TakeCounted() {
    ASSIGN_OR_RETURN(const T count, TakeNumber<T>());
    ASSIGN_OR_RETURN(const auto bytes, Take(count));
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  absl::StatusOr<std::string> TakeLine() {
    const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + position_,
                                bytes_.size() - position_);
    const size_t end = rest.find('\n');
    if (end == rest.npos) return Invalid("it is cut short");
    position_ += end + 1;
    return std::string(rest.substr(0, end));
  }

  // --- stack and memo ---

  absl::Status Push(uint32_t value) {
    if (stack_.size() == kMaxPickleValues) {
      return Invalid(absl::StrCat("its stack is over ", kMaxPickleValues, " values"));
    }
    stack_.push_back(value);
    return absl::OkStatus();
  }

  absl::Status Push(PickleValue value) {
    if (pickle_.values.size() == kMaxPickleValues) {
      return Invalid(absl::StrCat("over ", kMaxPickleValues, " values"));
    }
    pickle_.values.push_back(std::move(value));
    return Push(static_cast<uint32_t>(pickle_.values.size() - 1));
  }

  absl::Status PushOpaque() { return Push(PickleValue{}); }
  absl::Status PushInt(int64_t integer) { return Push({.kind = Kind::kInt, .integer = integer}); }
  absl::Status PushText(absl::StatusOr<std::string> text) {
    RETURN_IF_ERROR(text.status());
    return Push({.kind = Kind::kText, .text = *std::move(text)});
  }

  // Values above the last mark belong to whoever pops it.
  size_t Floor() const { return marks_.empty() ? 0 : marks_.back(); }

  absl::StatusOr<uint32_t> Pop() {
    if (stack_.size() <= Floor()) return Invalid("it takes a value from an empty stack");
    const uint32_t value = stack_.back();
    stack_.pop_back();
    return value;
  }

  absl::StatusOr<std::vector<uint32_t>> PopCount(size_t count) {
    if (stack_.size() - Floor() < count) return Invalid("it takes a value from an empty stack");
    std::vector<uint32_t> values(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return values;
  }

  absl::StatusOr<std::vector<uint32_t>> PopMark() {
    if (marks_.empty()) return Invalid("it closes what it never opened");
    auto values = PopCount(stack_.size() - marks_.back());
    marks_.pop_back();
    return values;
  }

  absl::StatusOr<PickleValue*> Top(std::string_view action) {
    if (stack_.size() <= Floor()) return Invalid(absl::StrCat("it ", action, " an empty stack"));
    return &pickle_.values[stack_.back()];
  }

  absl::Status Put(uint32_t key) {
    if (stack_.size() <= Floor()) return Invalid("it remembers a value of an empty stack");
    if (memo_.size() == kMaxPickleValues) {
      return Invalid(absl::StrCat("its memo is over ", kMaxPickleValues, " values"));
    }
    memo_[key] = stack_.back();
    return absl::OkStatus();
  }

  absl::Status Get(uint32_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end())
      return Invalid(absl::StrCat("it recalls ", key, ", never remembered"));
    return Push(found->second);
  }

  // --- containers ---

  absl::Status PushItems(Kind kind, absl::StatusOr<std::vector<uint32_t>> items) {
    RETURN_IF_ERROR(items.status());
    if (kind == Kind::kDict && items->size() % 2 != 0) {
      return Invalid("a dictionary with a key and no value");
    }
    return Push({.kind = kind, .items = *std::move(items)});
  }

  // To the container below them. What is opaque takes what it is given.
  absl::Status AddItems(Kind kind, absl::StatusOr<std::vector<uint32_t>> items) {
    RETURN_IF_ERROR(items.status());
    ASSIGN_OR_RETURN(PickleValue* const container, Top("adds to"));
    if (container->kind == Kind::kOpaque) return absl::OkStatus();
    if (container->kind != kind) return Invalid("it adds to a value that is no such container");
    if (kind == Kind::kDict && items->size() % 2 != 0) {
      return Invalid("a dictionary with a key and no value");
    }
    container->items.insert(container->items.end(), items->begin(), items->end());
    return absl::OkStatus();
  }

  // --- names, calls, objects ---

  absl::Status PushName(std::string_view module, std::string_view name) {
    if (module.size() > kMaxPickleNameBytes || name.size() > kMaxPickleNameBytes) {
      return Invalid("a global with a long name");
    }
    return Push({.kind = Kind::kGlobal, .text = absl::StrCat(module, ".", name)});
  }

  absl::Status PushGlobal() {
    ASSIGN_OR_RETURN(const std::string module, TakeLine());
    ASSIGN_OR_RETURN(const std::string name, TakeLine());
    return PushName(module, name);
  }

  absl::Status PushStackGlobal() {
    ASSIGN_OR_RETURN(const auto names, PopCount(2));
    const PickleValue &module = pickle_.values[names[0]], &name = pickle_.values[names[1]];
    if (module.kind != Kind::kText || name.kind != Kind::kText) {
      return Invalid("a global whose name is no text");
    }
    return PushName(module.text, name.text);
  }

  absl::Status Reduce() {
    ASSIGN_OR_RETURN(const auto call, PopCount(2));
    ASSIGN_OR_RETURN(PickleValue result, CallGlobal(call[0], call[1], &pickle_));
    return Push(std::move(result));
  }

  absl::Status NewObject() {
    ASSIGN_OR_RETURN(const auto call, PopCount(2));
    const PickleValue& type = pickle_.values[call[0]];
    return Invalid(
        type.kind == Kind::kGlobal
            ? absl::StrCat("it makes an object of ", Quoted(type.text), ", which is not allowed")
            : "it makes an object of what is no type");
  }

  // The state of an object: a state dict's _metadata, a numpy dtype's byte order.
  absl::Status Build() {
    RETURN_IF_ERROR(Pop().status());
    ASSIGN_OR_RETURN(const PickleValue* const object, Top("sets the state of"));
    if (object->kind == Kind::kGlobal) {
      return Invalid(absl::StrCat("it sets the state of ", Quoted(object->text)));
    }
    return absl::OkStatus();
  }

  absl::Status PushStorage() {
    ASSIGN_OR_RETURN(const uint32_t id, Pop());
    ASSIGN_OR_RETURN(PickleValue storage, StorageOfPersistentId(id, &pickle_));
    return Push(std::move(storage));
  }

  absl::Status PushLong(absl::StatusOr<std::string> bytes) {
    RETURN_IF_ERROR(bytes.status());
    if (bytes->size() > sizeof(int64_t)) return PushOpaque();  // no size of ours is as large
    const bool negative = !bytes->empty() && static_cast<int8_t>(bytes->back()) < 0;
    bytes->resize(sizeof(int64_t), negative ? '\xff' : '\0');
    return PushInt(LoadLittleEndian<int64_t>(std::as_bytes(std::span(*bytes))));
  }

  // --- opcodes ---

  absl::Status Step(bool* stopped) {
    ASSIGN_OR_RETURN(const uint8_t opcode, TakeNumber<uint8_t>());
    for (const auto group : {&Machine::Flow, &Machine::Literal, &Machine::Container,
                             &Machine::Remember, &Machine::Object}) {
      if (std::optional<absl::Status> done = (this->*group)(opcode); done) {
        *stopped = opcode == kStop;
        return *std::move(done);
      }
    }
    return Invalid(absl::StrFormat("the opcode 0x%02x is not allowed", opcode));
  }

  // Each of the groups: nullopt when the opcode is not of it.
  std::optional<absl::Status> Flow(uint8_t opcode) {
    switch (opcode) {
      case kProto: {
        const auto protocol = TakeNumber<uint8_t>();
        if (!protocol.ok()) return protocol.status();
        if (*protocol >= kMinProtocol && *protocol <= kMaxProtocol) return absl::OkStatus();
        return Invalid(absl::StrCat("protocol ", *protocol, "; ours are ", kMinProtocol, " to ",
                                    kMaxProtocol));
      }
      case kFrame:
        return TakeNumber<uint64_t>().status();
      case kStop: {
        const auto root = Pop();
        if (root.ok()) pickle_.root = *root;
        return root.status();
      }
      case kMark:
        if (marks_.size() == kMaxPickleValues) return Invalid("too many marks");
        marks_.push_back(stack_.size());
        return absl::OkStatus();
      case kPop:
        if (stack_.size() == Floor() && !marks_.empty()) return PopMark().status();
        return Pop().status();
      case kPopMark:
        return PopMark().status();
      case kDup:
        if (stack_.size() <= Floor()) return Invalid("it doubles a value of an empty stack");
        return Push(stack_.back());
      default:
        return std::nullopt;
    }
  }

  std::optional<absl::Status> Literal(uint8_t opcode) {
    switch (opcode) {
      case kNone:
        return PushOpaque();
      case kNewTrue:
      case kNewFalse:
        return PushInt(opcode == kNewTrue ? 1 : 0);
      case kBinInt:
        return PushNumber<int32_t>();
      case kBinInt1:
        return PushNumber<uint8_t>();
      case kBinInt2:
        return PushNumber<uint16_t>();
      case kLong1:
        return PushLong(TakeCounted<uint8_t>());
      case kLong4:
        return PushLong(TakeCounted<uint32_t>());
      case kBinFloat:
        if (absl::Status status = Take(sizeof(double)).status(); !status.ok()) return status;
        return PushOpaque();
      case kShortBinBytes:
      case kShortBinString:
      case kShortBinUnicode:
        return PushText(TakeCounted<uint8_t>());
      case kBinBytes:
      case kBinString:
      case kBinUnicode:
        return PushText(TakeCounted<uint32_t>());
      case kBinBytes8:
      case kBinUnicode8:
      case kByteArray8:
        return PushText(TakeCounted<uint64_t>());
      default:
        return std::nullopt;
    }
  }

  template <typename T>
  absl::Status PushNumber() {
    ASSIGN_OR_RETURN(const T number, TakeNumber<T>());
    return PushInt(number);
  }

  std::optional<absl::Status> Container(uint8_t opcode) {
    switch (opcode) {
      case kEmptyList:
        return Push({.kind = Kind::kList});
      case kEmptyDict:
        return Push({.kind = Kind::kDict});
      case kEmptyTuple:
        return Push({.kind = Kind::kTuple});
      case kEmptySet:
        return PushOpaque();
      case kList:
        return PushItems(Kind::kList, PopMark());
      case kDict:
        return PushItems(Kind::kDict, PopMark());
      case kTuple:
        return PushItems(Kind::kTuple, PopMark());
      case kTuple1:
      case kTuple2:
      case kTuple3:
        return PushItems(Kind::kTuple, PopCount(opcode - kTuple1 + 1u));
      case kFrozenSet:
        if (absl::Status status = PopMark().status(); !status.ok()) return status;
        return PushOpaque();
      case kAppend:
        return AddItems(Kind::kList, PopCount(1));
      case kAppends:
      case kAddItems:
        return AddItems(Kind::kList, PopMark());
      case kSetItem:
        return AddItems(Kind::kDict, PopCount(2));
      case kSetItems:
        return AddItems(Kind::kDict, PopMark());
      default:
        return std::nullopt;
    }
  }

  std::optional<absl::Status> Remember(uint8_t opcode) {
    const auto with = [&](auto key, absl::Status (Machine::*action)(uint32_t)) {
      return key.ok() ? (this->*action)(*key) : key.status();
    };
    switch (opcode) {
      case kBinPut:
        return with(TakeNumber<uint8_t>(), &Machine::Put);
      case kLongBinPut:
        return with(TakeNumber<uint32_t>(), &Machine::Put);
      case kMemoize:
        return Put(static_cast<uint32_t>(memo_.size()));
      case kBinGet:
        return with(TakeNumber<uint8_t>(), &Machine::Get);
      case kLongBinGet:
        return with(TakeNumber<uint32_t>(), &Machine::Get);
      default:
        return std::nullopt;
    }
  }

  std::optional<absl::Status> Object(uint8_t opcode) {
    switch (opcode) {
      case kGlobal:
        return PushGlobal();
      case kStackGlobal:
        return PushStackGlobal();
      case kReduce:
        return Reduce();
      case kNewObj:
        return NewObject();
      case kBuild:
        return Build();
      case kBinPersId:
        return PushStorage();
      default:
        return std::nullopt;
    }
  }

  const std::span<const std::byte> bytes_;
  size_t position_ = 0;
  Pickle pickle_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;  // stack sizes
  absl::flat_hash_map<uint32_t, uint32_t> memo_;
};

}  // namespace

absl::StatusOr<Pickle> ParsePickle(std::span<const std::byte> bytes) {
  if (bytes.size() > kMaxPickleBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("pickle: ", bytes.size(), " bytes; the most is ", kMaxPickleBytes));
  }
  return Machine(bytes).Run();
}

}  // namespace distorch
