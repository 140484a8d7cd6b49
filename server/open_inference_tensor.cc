#include "server/open_inference_tensor.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

using inference::InferTensorContents;
using Elements = std::vector<FieldValue>;

constexpr std::size_t kLengthBytes = sizeof(uint32_t);

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(what); }

// Of the variant, what holds a T.
template <typename T>
FieldValue ToValue(const T& element) {
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
    return element;
  } else if constexpr (std::is_floating_point_v<T>) {
    return static_cast<double>(element);
  } else if constexpr (std::is_signed_v<T>) {
    return static_cast<int64_t>(element);
  } else {
    return static_cast<uint64_t>(element);
  }
}

template <typename Repeated>
Elements FromContents(const Repeated& contents) {
  Elements out;
  for (const auto& element : contents) out.push_back(ToValue(element));
  return out;
}

template <typename T>
absl::StatusOr<Elements> FromRaw(std::string_view raw, int64_t count) {
  const auto needed = static_cast<std::size_t>(count) * sizeof(T);
  if (raw.size() != needed)
    return Bad(absl::StrCat("has ", raw.size(), " bytes; its shape needs ", needed));
  Elements out;
  for (std::size_t at = 0; at < raw.size(); at += sizeof(T)) {
    if constexpr (std::is_same_v<T, bool>) {
      out.emplace_back(raw[at] != 0);
    } else {
      T element;
      std::memcpy(&element, raw.data() + at, sizeof(T));
      out.push_back(ToValue(element));
    }
  }
  return out;
}

template <>
absl::StatusOr<Elements> FromRaw<std::string>(std::string_view raw, int64_t count) {
  Elements out;
  for (int64_t i = 0; i < count; ++i) {
    if (raw.size() < kLengthBytes)
      return Bad(absl::StrCat("ends within element ", i, " of ", count));
    uint32_t length;
    std::memcpy(&length, raw.data(), kLengthBytes);
    raw.remove_prefix(kLengthBytes);
    if (raw.size() < length)
      return Bad(absl::StrCat("element ", i, " has ", length, " bytes, but ", raw.size(),
                              " are left of the contents"));
    out.emplace_back(std::string(raw.substr(0, length)));
    raw.remove_prefix(length);
  }
  if (!raw.empty())
    return Bad(absl::StrCat("has ", raw.size(), " bytes after the ", count,
                            " elements that its shape says"));
  return out;
}

// A datatype's way to be read.
struct Reader {
  std::string_view datatype;
  Elements (*contents)(const InferTensorContents& contents);
  absl::StatusOr<Elements> (*raw)(std::string_view raw, int64_t count);
};

template <auto kContents, typename T>
constexpr Reader Read(std::string_view datatype) {
  return {datatype,
          [](const InferTensorContents& contents) { return FromContents((contents.*kContents)()); },
          FromRaw<T>};
}

template <typename T>
using Numbers = const google::protobuf::RepeatedField<T>& (InferTensorContents::*)() const;
template <typename T>
constexpr Numbers<T> Of(Numbers<T> accessor) {
  return accessor;
}
constexpr auto kBools = Of<bool>(&InferTensorContents::bool_contents);
constexpr auto kInts = Of<int32_t>(&InferTensorContents::int_contents);
constexpr auto kInt64s = Of<int64_t>(&InferTensorContents::int64_contents);
constexpr auto kUints = Of<uint32_t>(&InferTensorContents::uint_contents);
constexpr auto kUint64s = Of<uint64_t>(&InferTensorContents::uint64_contents);
constexpr auto kFloats = Of<float>(&InferTensorContents::fp32_contents);
constexpr auto kDoubles = Of<double>(&InferTensorContents::fp64_contents);
using Strings =
    const google::protobuf::RepeatedPtrField<std::string>& (InferTensorContents::*)() const;
constexpr Strings kStrings = &InferTensorContents::bytes_contents;

const std::array<Reader, 12> kReaders = {{
    Read<kBools, bool>("BOOL"),
    Read<kInts, int8_t>("INT8"),
    Read<kInts, int16_t>("INT16"),
    Read<kInts, int32_t>("INT32"),
    Read<kInt64s, int64_t>("INT64"),
    Read<kUints, uint8_t>("UINT8"),
    Read<kUints, uint16_t>("UINT16"),
    Read<kUints, uint32_t>("UINT32"),
    Read<kUint64s, uint64_t>("UINT64"),
    Read<kFloats, float>("FP32"),
    Read<kDoubles, double>("FP64"),
    Read<kStrings, std::string>("BYTES"),
}};

// Bounds each factor before it multiplies, so that the product cannot overflow.
absl::StatusOr<int64_t> Count(const google::protobuf::RepeatedField<int64_t>& shape, int64_t max) {
  int64_t count = 1;
  for (const int64_t dim : shape) {
    if (dim < 1 || dim > max || (count *= dim) > max)
      return Bad(absl::StrCat("shape [", absl::StrJoin(shape, ", "), "] is not of 1 to ", max,
                              " elements"));
  }
  return count;
}

absl::StatusOr<Elements> Read(const inference::ModelInferRequest::InferInputTensor& input,
                              const std::string* raw, int64_t max_elements) {
  if (!input.parameters().empty())
    return Bad(absl::StrCat("parameter ", Quoted(input.parameters().begin()->first),
                            " is not supported: inputs come with the request, and have none"));
  const auto reader =
      absl::c_find_if(kReaders, [&](const Reader& r) { return r.datatype == input.datatype(); });
  if (reader == kReaders.end())
    return Bad(absl::StrCat("datatype ", Quoted(input.datatype()), " is not one of ",
                            absl::StrJoin(kReaders, ", ", [](auto* out, const Reader& r) {
                              out->append(r.datatype);
                            })));
  ASSIGN_OR_RETURN(const int64_t count, Count(input.shape(), max_elements));
  if (raw != nullptr) return reader->raw(*raw, count);
  Elements elements = reader->contents(input.contents());
  if (std::cmp_not_equal(elements.size(), count))
    return Bad(absl::StrCat("has ", elements.size(), " elements in the contents of ",
                            input.datatype(), "; its shape needs ", count));
  return elements;
}

}  // namespace

absl::StatusOr<std::vector<FieldValue>> ReadTensor(
    const inference::ModelInferRequest::InferInputTensor& input, const std::string* raw,
    int64_t max_elements) {
  absl::StatusOr<Elements> elements = Read(input, raw, max_elements);
  if (elements.ok()) return elements;
  return Bad(absl::StrCat(input.name(), ": ", elements.status().message()));
}

void AddTensor(std::string_view name, std::string_view datatype, const std::vector<int64_t>& shape,
               std::string raw, inference::ModelInferResponse* response) {
  auto* output = response->add_outputs();
  output->set_name(std::string(name));
  output->set_datatype(std::string(datatype));
  output->mutable_shape()->Assign(shape.begin(), shape.end());
  response->add_raw_output_contents(std::move(raw));
}

std::string PackBytes(const std::vector<std::string>& elements) {
  std::string packed;
  for (const std::string& element : elements) {
    const auto length = static_cast<uint32_t>(element.size());
    packed.append(reinterpret_cast<const char*>(&length), kLengthBytes).append(element);
  }
  return packed;
}

}  // namespace distorch
