#include "lib/checkpoint/gguf.h"

#include <algorithm>
#include <bit>
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
#include "lib/checkpoint/little_endian.h"

namespace distorch {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kMinVersion = 2, kMaxVersion = 3;
constexpr uint64_t kMaxTensors = 100'000, kMaxMetadata = 100'000;
constexpr uint64_t kMaxNameBytes = 512, kMaxKeyBytes = 65'535;
// A chat template or a description; the strings of arrays are skipped, whatever their length.
constexpr uint64_t kMaxStringBytes = 1 << 20;
constexpr uint64_t kMaxMetadataBytes = 64 << 20;
constexpr uint32_t kMaxDims = 4;  // ggml's
constexpr uint64_t kMaxOrigDims = 8;
constexpr uint64_t kDefaultAlignment = 32, kMaxAlignment = 1 << 20;
constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr std::string_view kOrigShapeKey = "comfy.gguf.orig_shape.";

absl::Status Invalid(std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("GGUF: ", message));
}

// The metadata's types, in the order of their numbers.
enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// Bytes of a value; 0 for those that have no fixed size and for unknown types.
uint64_t ValueBytes(uint32_t type) {
  constexpr uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < std::size(kBytes) ? kBytes[type] : 0;
}

struct GgmlType {
  uint32_t number;
  DType dtype;
};
constexpr GgmlType kGgmlTypes[] = {
    {0, DType::kF32},     {1, DType::kF16},     {2, DType::kQ4_0},  {3, DType::kQ4_1},
    {6, DType::kQ5_0},    {7, DType::kQ5_1},    {8, DType::kQ8_0},  {10, DType::kQ2_K},
    {11, DType::kQ3_K},   {12, DType::kQ4_K},   {13, DType::kQ5_K}, {14, DType::kQ6_K},
    {20, DType::kIQ4_NL}, {23, DType::kIQ4_XS}, {24, DType::kI8},   {25, DType::kI16},
    {26, DType::kI32},    {27, DType::kI64},    {28, DType::kF64},  {30, DType::kBF16},
};

// A buffered cursor; positions count from the start of the file.
class Cursor {
 public:
  explicit Cursor(const ByteSource& file) : file_(file) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return file_.size() - position_; }

  absl::Status Skip(uint64_t bytes, std::string_view what) {
    if (bytes > remaining()) return CutShort(what);
    position_ += bytes;
    return absl::OkStatus();
  }

  template <typename T>
  absl::StatusOr<T> Number(std::string_view what) {
    if (sizeof(T) > remaining()) return CutShort(what);
    if (position_ < buffer_start_ || position_ + sizeof(T) > buffer_start_ + buffer_.size()) {
      buffer_.resize(std::min<uint64_t>(kBufferBytes, remaining()));
      buffer_start_ = position_;
      RETURN_IF_ERROR(file_.ReadAt(position_, buffer_));
    }
    const T value = LoadLittleEndian<T>(buffer_, position_ - buffer_start_);
    position_ += sizeof(T);
    return value;
  }

  absl::StatusOr<std::string> String(uint64_t max_bytes, std::string_view what) {
    ASSIGN_OR_RETURN(const uint64_t bytes, Number<uint64_t>(what));
    if (bytes > max_bytes) {
      return Invalid(absl::StrCat(what, " of ", bytes, " bytes; the most is ", max_bytes));
    }
    const uint64_t start = position_;
    RETURN_IF_ERROR(Skip(bytes, what));
    std::string text(bytes, '\0');
    RETURN_IF_ERROR(file_.ReadAt(start, std::as_writable_bytes(std::span(text))));
    if (Utf8PrefixLength(text) != text.size()) {
      return Invalid(absl::StrCat(what, " ", Quoted(text), " is not UTF-8"));
    }
    return text;
  }

 private:
  static constexpr uint64_t kBufferBytes = 64 << 10;

  absl::Status CutShort(std::string_view what) const {
    return Invalid(
        absl::StrCat("truncated: the file of ", file_.size(), " bytes ends within ", what));
  }

  const ByteSource& file_;
  uint64_t position_ = 0;
  uint64_t buffer_start_ = 0;
  std::vector<std::byte> buffer_;
};

class Reader {
 public:
  explicit Reader(const ByteSource& file) : file_(file), cursor_(file) {}

  absl::StatusOr<TensorIndex> Read() {
    ASSIGN_OR_RETURN(const uint32_t magic, cursor_.Number<uint32_t>("the header"));
    if (magic != kMagic) return Invalid("it does not begin with 'GGUF'");
    ASSIGN_OR_RETURN(const uint32_t version, cursor_.Number<uint32_t>("the header"));
    if (version < kMinVersion || version > kMaxVersion) {
      return Invalid(absl::StrCat("version ", version, "; supported are ", kMinVersion, " and ",
                                  kMaxVersion, ", little-endian"));
    }
    ASSIGN_OR_RETURN(const uint64_t tensors, cursor_.Number<uint64_t>("the header"));
    ASSIGN_OR_RETURN(const uint64_t pairs, cursor_.Number<uint64_t>("the header"));
    if (tensors > kMaxTensors) {
      return Invalid(absl::StrCat(tensors, " tensors; the most is ", kMaxTensors));
    }
    if (pairs > kMaxMetadata) {
      return Invalid(absl::StrCat(pairs, " pairs of metadata; the most is ", kMaxMetadata));
    }
    for (uint64_t i = 0; i < pairs; ++i) RETURN_IF_ERROR(ReadPair());
    for (uint64_t i = 0; i < tensors; ++i) RETURN_IF_ERROR(ReadTensor());
    RETURN_IF_ERROR(PlaceTensors());
    return TensorIndex(std::move(tensors_), std::move(metadata_));
  }

 private:
  absl::Status ReadPair() {
    ASSIGN_OR_RETURN(const std::string key, cursor_.String(kMaxKeyBytes, "a metadata key"));
    const std::string where = absl::StrCat("metadata ", Quoted(key));
    RETURN_IF_ERROR(Keep(key.size()));
    ASSIGN_OR_RETURN(const uint32_t type, cursor_.Number<uint32_t>(where));
    if (!keys_.insert(key).second) return Invalid(absl::StrCat("duplicate ", where));
    if (type == kArray) return ReadArray(key, where);
    std::string value;
    if (type == kString) {
      ASSIGN_OR_RETURN(value, cursor_.String(kMaxStringBytes, where));
    } else {
      ASSIGN_OR_RETURN(value, ReadScalar(type, where));
    }
    RETURN_IF_ERROR(Keep(value.size()));
    if (key == kAlignmentKey) RETURN_IF_ERROR(SetAlignment(type, value));
    metadata_.emplace(key, std::move(value));
    return absl::OkStatus();
  }

  // Counts bytes of metadata that stay in memory.
  absl::Status Keep(uint64_t bytes) {
    metadata_bytes_ += bytes;
    if (metadata_bytes_ <= kMaxMetadataBytes) return absl::OkStatus();
    return Invalid(absl::StrCat("over ", kMaxMetadataBytes, " bytes of metadata"));
  }

  template <typename T>
  absl::StatusOr<std::string> ReadAs(std::string_view where) {
    ASSIGN_OR_RETURN(const T value, cursor_.Number<T>(where));
    return absl::StrCat(value);
  }

  absl::StatusOr<std::string> ReadScalar(uint32_t type, const std::string& where) {
    switch (type) {
      case kUint8:
        return ReadAs<uint8_t>(where);
      case kInt8:
        return ReadAs<int8_t>(where);
      case kUint16:
        return ReadAs<uint16_t>(where);
      case kInt16:
        return ReadAs<int16_t>(where);
      case kUint32:
        return ReadAs<uint32_t>(where);
      case kInt32:
        return ReadAs<int32_t>(where);
      case kUint64:
        return ReadAs<uint64_t>(where);
      case kInt64:
        return ReadAs<int64_t>(where);
      case kFloat32:
        return ReadAs<float>(where);
      case kFloat64:
        return ReadAs<double>(where);
      case kBool: {
        ASSIGN_OR_RETURN(const uint8_t value, cursor_.Number<uint8_t>(where));
        return std::string(value != 0 ? "true" : "false");
      }
      default:
        return Invalid(absl::StrCat(where, " has the unknown type ", type));
    }
  }

  absl::Status SetAlignment(uint32_t type, const std::string& value) {
    const uint64_t alignment = type == kUint32 ? std::stoul(value) : 0;
    if (!std::has_single_bit(alignment) || alignment > kMaxAlignment) {
      return Invalid(absl::StrCat(kAlignmentKey, " is ", Quoted(value),
                                  "; allowed: a power of 2 up to ", kMaxAlignment));
    }
    alignment_ = alignment;
    return absl::OkStatus();
  }

  absl::Status ReadArray(const std::string& key, const std::string& where) {
    ASSIGN_OR_RETURN(const uint32_t type, cursor_.Number<uint32_t>(where));
    ASSIGN_OR_RETURN(const uint64_t count, cursor_.Number<uint64_t>(where));
    if (type == kString) {
      for (uint64_t i = 0; i < count; ++i) {  // each takes 8 bytes of the file or more
        ASSIGN_OR_RETURN(const uint64_t bytes, cursor_.Number<uint64_t>(where));
        RETURN_IF_ERROR(cursor_.Skip(bytes, where));
      }
      return absl::OkStatus();
    }
    const uint64_t value_bytes = ValueBytes(type);
    if (value_bytes == 0) {
      return Invalid(absl::StrCat(where, " is an array of the unsupported type ", type));
    }
    if (absl::StartsWith(key, kOrigShapeKey)) return ReadOrigShape(key, where, type, count);
    if (count > cursor_.remaining() / value_bytes) {
      return Invalid(absl::StrCat("truncated: ", where, " is an array of ", count,
                                  " values; the file ends before"));
    }
    return cursor_.Skip(count * value_bytes, where);
  }

  absl::Status ReadOrigShape(const std::string& key, const std::string& where, uint32_t type,
                             uint64_t count) {
    if (type != kInt32 || count > kMaxOrigDims) {
      return Invalid(absl::StrCat(where, " must be at most ", kMaxOrigDims, " numbers of 32 bits"));
    }
    std::vector<int64_t> shape;
    for (uint64_t i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(const int32_t dim, cursor_.Number<int32_t>(where));
      if (dim < 0) return Invalid(absl::StrCat(where, " has a negative dimension"));
      shape.push_back(dim);
    }
    orig_shapes_.emplace(key.substr(kOrigShapeKey.size()), std::move(shape));
    return absl::OkStatus();
  }

  absl::Status ReadTensor() {
    TensorInfo tensor;
    ASSIGN_OR_RETURN(tensor.name, cursor_.String(kMaxNameBytes, "a tensor's name"));
    const std::string where = absl::StrCat("tensor ", Quoted(tensor.name));
    if (!names_.insert(tensor.name).second) return Invalid(absl::StrCat("duplicate ", where));
    RETURN_IF_ERROR(ReadShape(where, &tensor.shape));
    ASSIGN_OR_RETURN(const uint32_t type, cursor_.Number<uint32_t>(where));
    ASSIGN_OR_RETURN(tensor.offset, cursor_.Number<uint64_t>(where));
    const auto* known = std::find_if(std::begin(kGgmlTypes), std::end(kGgmlTypes),
                                     [&](const GgmlType& t) { return t.number == type; });
    if (known == std::end(kGgmlTypes)) {
      return Invalid(absl::StrCat(where, " has the type ", type,
                                  "; supported are F32, F16, BF16, F64, I8 to I64, Q4_0, Q4_1, "
                                  "Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL and IQ4_XS"));
    }
    tensor.dtype = known->dtype;
    RETURN_IF_ERROR(Measure(where, &tensor));
    tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  absl::Status ReadShape(const std::string& where, std::vector<int64_t>* shape) {
    ASSIGN_OR_RETURN(const uint32_t dims, cursor_.Number<uint32_t>(where));
    if (dims > kMaxDims) {
      return Invalid(absl::StrCat(where, " has ", dims, " dimensions; the most is ", kMaxDims));
    }
    shape->resize(dims);
    for (size_t i = dims; i-- > 0;) {
      ASSIGN_OR_RETURN((*shape)[i], cursor_.Number<int64_t>(where));
    }
    // In the order of TensorInfo::elements: a later 0 does not excuse an overflow. 8 bytes is the
    // largest element.
    int64_t elements = 1;
    for (const int64_t dim : *shape) {
      if (dim < 0 || __builtin_mul_overflow(elements, dim, &elements) || elements > INT64_MAX / 8) {
        return Invalid(absl::StrCat(where, " has a shape that overflows"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Measure(const std::string& where, TensorInfo* tensor) {
    const DTypeBlock block = BlockOf(tensor->dtype);
    const int64_t elements = tensor->elements();
    const int64_t row = tensor->shape.empty() ? 1 : tensor->shape.back();
    if (row % static_cast<int64_t>(block.elements) != 0) {
      return Invalid(absl::StrCat(where, " of ", DTypeName(tensor->dtype), " has rows of ", row,
                                  " elements, no whole number of blocks of ", block.elements));
    }
    tensor->bytes = BytesOf(block, static_cast<uint64_t>(elements));
    const auto orig = orig_shapes_.find(tensor->name);
    if (orig == orig_shapes_.end()) return absl::OkStatus();
    int64_t orig_elements = 1;
    for (const int64_t dim : orig->second) {
      if (__builtin_mul_overflow(orig_elements, dim, &orig_elements)) orig_elements = -1;
      if (orig_elements < 0) break;
    }
    if (orig_elements != elements) {
      return Invalid(absl::StrCat(where, " of shape ", ShapeString(tensor->shape),
                                  " cannot have the original shape ", ShapeString(orig->second)));
    }
    tensor->shape = orig->second;
    return absl::OkStatus();
  }

  // Offsets become the file's; the tensors lie apart in it.
  absl::Status PlaceTensors() {
    const uint64_t data_start = (cursor_.position() + alignment_ - 1) / alignment_ * alignment_;
    std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
    });
    uint64_t covered = 0;
    for (TensorInfo& tensor : tensors_) {
      const std::string where = absl::StrCat("tensor ", Quoted(tensor.name));
      if (tensor.offset % alignment_ != 0) {
        return Invalid(
            absl::StrCat(where, " at ", tensor.offset, " is not aligned to ", alignment_));
      }
      if (tensor.offset < covered) {
        return Invalid(absl::StrCat(where, " at ", tensor.offset,
                                    " overlaps the tensor before, which ends at ", covered));
      }
      if (data_start > file_.size() || tensor.offset > file_.size() - data_start ||
          tensor.bytes > file_.size() - data_start - tensor.offset) {
        return Invalid(absl::StrCat("truncated: ", where, ", ", tensor.bytes, " bytes at ",
                                    tensor.offset, ", ends past the file of ", file_.size()));
      }
      covered = tensor.offset + tensor.bytes;
      tensor.offset += data_start;
    }
    return absl::OkStatus();
  }

  const ByteSource& file_;
  Cursor cursor_;
  uint64_t alignment_ = kDefaultAlignment;
  uint64_t metadata_bytes_ = 0;
  absl::flat_hash_set<std::string> keys_, names_;
  absl::flat_hash_map<std::string, std::string> metadata_;
  absl::flat_hash_map<std::string, std::vector<int64_t>> orig_shapes_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace

absl::StatusOr<TensorIndex> ReadGguf(const ByteSource& file) { return Reader(file).Read(); }

}  // namespace distorch
