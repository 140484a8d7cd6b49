#include "lib/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "nlohmann/json.hpp"

namespace distorch {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::string_view kDTypes =
    "BOOL, U8, I8, I16, I32, I64, F8_E4M3, F8_E5M2, F16, BF16, F32 or F64";
constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMinHeaderBytes = 2;
constexpr uint64_t kMaxInteger = INT64_MAX;
constexpr std::size_t kMaxReasonBytes = 160;

using Json = nlohmann::json;

// The parser's events become tensors without a document in between. Offsets stay relative to the
// data. What is not where the format has it ends the parse with `error()`.
class HeaderHandler final : public nlohmann::json_sax<Json> {
 public:
  const std::string& error() const { return error_; }
  std::vector<TensorInfo> TakeTensors() { return std::move(tensors_); }
  absl::flat_hash_map<std::string, std::string> TakeMetadata() { return std::move(metadata_); }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool value) override { return Unexpected(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return Unexpected(absl::StrCat(value)); }
  bool number_float(number_float_t, const string_t& text) override { return Unexpected(text); }
  bool binary(binary_t&) override { return Unexpected("bytes"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (value > kMaxInteger) return Unexpected(absl::StrCat(value));
    if (place_ == Place::kDim) {
      if (tensor_.shape.size() == kMaxTensorDims) {
        return Fail(absl::StrCat(Where(), ": over ", kMaxTensorDims, " dimensions"));
      }
      tensor_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffset && offset_count_ < offsets_.size()) {
      offsets_[offset_count_++] = value;
      return true;
    }
    return Unexpected(absl::StrCat(value));
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadataValue) {
      metadata_.find(metadata_key_)->second = std::move(value);
      place_ = Place::kMetadataKey;
      return true;
    }
    if (place_ != Place::kDType) return Unexpected("a string");
    dtype_ = ParseDType(value);
    if (!dtype_ || IsQuantized(*dtype_)) {
      return Fail(
          absl::StrCat(Where(), ": unknown dtype ", Quoted(value), "; known are ", kDTypes));
    }
    place_ = Place::kField;
    return true;
  }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kHeader:
        place_ = Place::kName;
        return true;
      case Place::kMetadata:
        place_ = Place::kMetadataKey;
        return true;
      case Place::kTensor:
        place_ = Place::kField;
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool key(string_t& name) override {
    switch (place_) {
      case Place::kName:
        if (name != kMetadataKey) return StartTensor(std::move(name));
        if (std::exchange(has_metadata_, true)) {
          return Fail(absl::StrCat("duplicate name ", Quoted(name)));
        }
        place_ = Place::kMetadata;
        return true;
      case Place::kMetadataKey:
        if (!metadata_.emplace(name, "").second) {
          return Fail(absl::StrCat("duplicate name ", Quoted(name), " in ", kMetadataKey));
        }
        metadata_key_ = std::move(name);
        place_ = Place::kMetadataValue;
        return true;
      default:
        return StartField(name);
    }
  }

  bool end_object() override {
    if (place_ == Place::kField) return FinishTensor();
    place_ = place_ == Place::kMetadataKey ? Place::kName : Place::kHeader;
    return true;
  }

  bool start_array(std::size_t) override {
    switch (place_) {
      case Place::kShape:
        place_ = Place::kDim;
        return true;
      case Place::kOffsets:
        place_ = Place::kOffset;
        return true;
      default:
        return Unexpected("an array");
    }
  }

  bool end_array() override {
    if (place_ == Place::kOffset && offset_count_ != offsets_.size()) {
      return Fail(
          absl::StrCat(Where(), " must be two integers, begin and end, not ", offset_count_));
    }
    place_ = Place::kField;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const Json::exception& exception) override {
    std::string_view reason = exception.what();
    if (const auto id_end = reason.find("] "); id_end != reason.npos)
      reason.remove_prefix(id_end + 2);
    if (const auto place_end = reason.find(": "); place_end != reason.npos) {
      reason.remove_prefix(place_end + 2);
    }
    // It quotes what was read last, whole, and may cut a character in two.
    reason = reason.substr(0, kMaxReasonBytes);
    reason = reason.substr(0, Utf8PrefixLength(reason));
    return Fail(absl::StrCat("not valid JSON at byte ", std::max<std::size_t>(position, 1) - 1,
                             " of the header: ", reason));
  }

 private:
  // What the next event belongs to. A value of a kind that its place does not take is an error, so
  // that nesting is never deeper than the format's.
  enum class Place {
    kHeader,
    kName,
    kMetadata,
    kMetadataKey,
    kMetadataValue,
    kTensor,
    kField,
    kDType,
    kShape,
    kDim,
    kOffsets,
    kOffset,
  };

  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  bool Unexpected(std::string_view got) {
    return Fail(absl::StrCat(Where(), " must be ", Allowed(), ", not ",
                             got.size() < 40 ? got : "a long number"));
  }

  std::string Where() const {
    const std::string tensor = absl::StrCat("tensor ", Quoted(tensor_.name));
    switch (place_) {
      case Place::kMetadata:
        return std::string(kMetadataKey);
      case Place::kMetadataValue:
        return absl::StrCat(kMetadataKey, " entry ", Quoted(metadata_key_));
      case Place::kTensor:
      case Place::kField:
        return tensor;
      case Place::kDType:
        return absl::StrCat(tensor, ": dtype");
      case Place::kShape:
      case Place::kDim:
        return absl::StrCat(tensor, ": shape");
      case Place::kOffsets:
      case Place::kOffset:
        return absl::StrCat(tensor, ": data_offsets");
      default:
        return "the header";
    }
  }

  std::string_view Allowed() const {
    switch (place_) {
      case Place::kMetadata:
        return "an object of strings";
      case Place::kMetadataValue:
        return "a string";
      case Place::kTensor:
        return "an object of dtype, shape and data_offsets";
      case Place::kDType:
        return kDTypes;
      case Place::kShape:
      case Place::kDim:
        return "an array of integers from 0 to 2^63-1";
      case Place::kOffsets:
      case Place::kOffset:
        return "two integers from 0 to 2^63-1, begin and end";
      default:
        return "an object";
    }
  }

  bool StartTensor(std::string name) {
    tensor_ = {};
    tensor_.name = std::move(name);
    dtype_.reset();
    offset_count_ = 0;
    has_dtype_ = has_shape_ = has_offsets_ = false;
    place_ = Place::kTensor;
    return true;
  }

  bool StartField(std::string_view field) {
    bool* seen = nullptr;
    Place place = Place::kField;
    if (field == "dtype") {
      seen = &has_dtype_, place = Place::kDType;
    } else if (field == "shape") {
      seen = &has_shape_, place = Place::kShape;
    } else if (field == "data_offsets") {
      seen = &has_offsets_, place = Place::kOffsets;
    } else {
      return Fail(absl::StrCat(Where(), ": unknown field ", Quoted(field),
                               "; the fields are dtype, shape and data_offsets"));
    }
    if (std::exchange(*seen, true)) {
      return Fail(absl::StrCat(Where(), ": duplicate field ", Quoted(field)));
    }
    place_ = place;
    return true;
  }

  bool FinishTensor() {
    if (!has_dtype_ || !has_shape_ || !has_offsets_) {
      return Fail(absl::StrCat(Where(), ": lacks ",
                               !has_dtype_   ? "dtype"
                               : !has_shape_ ? "shape"
                                             : "data_offsets"));
    }
    // Checked in the order of the dimensions, a later 0 does not excuse an overflow: so every
    // partial product fits.
    auto bytes = static_cast<int64_t>(DTypeSize(*dtype_));
    for (const int64_t dim : tensor_.shape) {
      if (__builtin_mul_overflow(bytes, dim, &bytes)) {
        return Fail(absl::StrCat(Where(), ": shape ", ShapeString(tensor_.shape), " of ",
                                 DTypeName(*dtype_), " overflows; at most 2^63-1 bytes"));
      }
    }
    const auto [begin, end] = offsets_;
    const std::string offsets = absl::StrCat("data_offsets [", begin, ", ", end, "]");
    if (begin > end) return Fail(absl::StrCat(Where(), ": ", offsets, " are reversed"));
    if (end - begin != static_cast<uint64_t>(bytes)) {
      return Fail(absl::StrCat(Where(), ": ", offsets, " hold ", end - begin, " bytes, but shape ",
                               ShapeString(tensor_.shape), " of ", DTypeName(*dtype_), " takes ",
                               bytes));
    }
    tensor_.dtype = *dtype_;
    tensor_.offset = begin;
    tensor_.bytes = static_cast<uint64_t>(bytes);
    tensors_.push_back(std::move(tensor_));
    place_ = Place::kName;
    return true;
  }

  std::vector<TensorInfo> tensors_;
  absl::flat_hash_map<std::string, std::string> metadata_;
  std::string error_;
  Place place_ = Place::kHeader;
  bool has_metadata_ = false;
  std::string metadata_key_;
  // The tensor being read.
  TensorInfo tensor_;
  std::optional<DType> dtype_;
  std::array<uint64_t, 2> offsets_ = {};
  std::size_t offset_count_ = 0;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
};

absl::Status Invalid(std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("safetensors: ", message));
}

absl::Status CheckUniqueNames(const std::vector<TensorInfo>& tensors) {
  absl::flat_hash_set<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      return Invalid(absl::StrCat("duplicate name ", Quoted(tensor.name)));
    }
  }
  return absl::OkStatus();
}

// The tensors, sorted, cover the data: each starts where the one before ends, the last ends with
// the file.
absl::Status CheckLayout(const std::vector<TensorInfo>& tensors, uint64_t data_bytes) {
  uint64_t covered = 0;
  const TensorInfo* previous = nullptr;
  const TensorInfo* cut = nullptr;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset < covered) {
      return Invalid(absl::StrCat("tensor ", Quoted(tensor.name), " at ", tensor.offset,
                                  " overlaps tensor ", Quoted(previous->name), ", which ends at ",
                                  covered));
    }
    if (tensor.offset > covered) {
      return Invalid(absl::StrCat("a gap of ", tensor.offset - covered, " bytes before tensor ",
                                  Quoted(tensor.name), " at ", tensor.offset));
    }
    covered = tensor.offset + tensor.bytes;
    previous = &tensor;
    if (covered > data_bytes && cut == nullptr) cut = &tensor;
  }
  if (cut != nullptr) {
    return Invalid(absl::StrCat("truncated: ", covered - data_bytes, " bytes are missing of ",
                                covered, " bytes of tensors; the file ends in tensor ",
                                Quoted(cut->name)));
  }
  if (covered < data_bytes) {
    return Invalid(
        absl::StrCat(data_bytes - covered, " bytes after the last tensor belong to none"));
  }
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsHeader> ParseHeaderText(std::string_view text, uint64_t data_bytes) {
  if (const auto valid = Utf8PrefixLength(text); valid != text.size()) {
    return Invalid(absl::StrCat("the header is not UTF-8 at byte ", valid));
  }
  if (text.front() != '{') {
    return Invalid(absl::StrCat("the header must begin with '{', not ", Quoted(text.substr(0, 1))));
  }
  // To the JSON parser a NUL is the end of its input.
  if (const auto nul = text.find('\0'); nul != text.npos) {
    return Invalid(absl::StrCat("not valid JSON at byte ", nul, " of the header: a NUL"));
  }
  HeaderHandler handler;
  if (!Json::sax_parse(text.begin(), text.end(), &handler)) return Invalid(handler.error());

  std::vector<TensorInfo> tensors = handler.TakeTensors();
  RETURN_IF_ERROR(CheckUniqueNames(tensors));
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  RETURN_IF_ERROR(CheckLayout(tensors, data_bytes));
  const uint64_t data_start = kLengthBytes + text.size();
  for (TensorInfo& tensor : tensors) tensor.offset += data_start;
  return SafetensorsHeader{TensorIndex(std::move(tensors), handler.TakeMetadata()), data_start};
}

// N, within the format's limits and the file.
absl::StatusOr<uint64_t> HeaderLength(std::span<const std::byte> start, uint64_t file_bytes) {
  if (file_bytes < kLengthBytes) {
    return Invalid(
        absl::StrCat("too short: ", file_bytes, " bytes, not even the 8 of the header's length"));
  }
  static_assert(std::endian::native == std::endian::little);
  uint64_t length;
  std::memcpy(&length, start.data(), sizeof(length));
  if (length < kMinHeaderBytes) {
    return Invalid(
        absl::StrCat("the header's length is ", length, "; the least is ", kMinHeaderBytes));
  }
  if (length > kMaxSafetensorsHeaderBytes) {
    return Invalid(absl::StrCat("the header's length is ", length, "; the most is ",
                                kMaxSafetensorsHeaderBytes));
  }
  if (length > file_bytes - kLengthBytes) {
    return Invalid(absl::StrCat("truncated: ", length - (file_bytes - kLengthBytes),
                                " bytes are missing of a header of ", length));
  }
  return length;
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::span<const std::byte> file) {
  ASSIGN_OR_RETURN(const uint64_t length, HeaderLength(file, file.size()));
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  return ParseHeaderText(text, file.size() - kLengthBytes - length);
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const MappedFile& file) {
  std::array<std::byte, kLengthBytes> start = {};
  RETURN_IF_ERROR(file.ReadAt(0, std::span(start).first(std::min(file.size(), kLengthBytes))));
  ASSIGN_OR_RETURN(const uint64_t length, HeaderLength(start, file.size()));
  std::string text(length, '\0');
  RETURN_IF_ERROR(file.ReadAt(kLengthBytes, std::as_writable_bytes(std::span(text))));
  return ParseHeaderText(text, file.size() - kLengthBytes - length);
}

}  // namespace distorch
