#include "server/translate_tensor.h"

#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"

namespace distorch {
namespace {

constexpr int kMaxDimensions = 8;

struct WireType {
  v1::DataType wire;
  DType dtype;
  bool is_float;
};
constexpr std::array<WireType, 5> kWireTypes = {{
    {v1::FLOAT32, DType::kF32, true},
    {v1::FLOAT16, DType::kF16, true},
    {v1::BFLOAT16, DType::kBF16, true},
    {v1::UINT8, DType::kU8, false},
    {v1::INT64, DType::kI64, false},
}};

absl::Status Bad(std::string_view field, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", what));
}

// The index of the first element whose exponent bits (`mask`) are all set: an infinity or a NaN.
template <typename Bits>
std::optional<std::size_t> FirstNotFinite(std::string_view data, Bits mask) {
  for (std::size_t i = 0; i + sizeof(Bits) <= data.size(); i += sizeof(Bits)) {
    Bits bits;
    std::memcpy(&bits, data.data() + i, sizeof(Bits));
    if ((bits & mask) == mask) return i / sizeof(Bits);
  }
  return std::nullopt;
}

std::optional<std::size_t> FirstNotFinite(const HostTensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
      return FirstNotFinite<uint32_t>(tensor.data, 0x7F800000u);
    case DType::kF16:
      return FirstNotFinite<uint16_t>(tensor.data, 0x7C00u);
    case DType::kBF16:
      return FirstNotFinite<uint16_t>(tensor.data, 0x7F80u);
    default:
      return std::nullopt;
  }
}

absl::StatusOr<WireType> FindType(const v1::Tensor& tensor, std::string_view field,
                                  bool floats_only) {
  for (const WireType& type : kWireTypes) {
    if (type.wire == tensor.dtype() && (type.is_float || !floats_only)) return type;
  }
  return Bad(field,
             absl::StrCat("dtype ",
                          v1::DataType_IsValid(tensor.dtype()) ? v1::DataType_Name(tensor.dtype())
                                                               : absl::StrCat(tensor.dtype()),
                          " is not one of FLOAT32, FLOAT16, BFLOAT16",
                          floats_only ? "" : ", UINT8, INT64"));
}

absl::Status CheckSize(const v1::Tensor& tensor, const WireType& type, std::string_view field) {
  const std::string shape = absl::StrCat("[", absl::StrJoin(tensor.shape(), ", "), "]");
  if (tensor.shape_size() < 1 || tensor.shape_size() > kMaxDimensions) {
    return Bad(field,
               absl::StrCat("shape ", shape, " must have 1 to ", kMaxDimensions, " dimensions"));
  }
  absl::uint128 needed = DTypeSize(type.dtype);
  for (int64_t dim : tensor.shape()) {
    if (dim < 1)
      return Bad(field, absl::StrCat("shape ", shape, " must have dimensions of at least 1"));
    needed *= static_cast<uint64_t>(dim);
    // Keeps the product below 2^126, whatever comes next.
    if ((needed >> 62) != 0) return Bad(field, absl::StrCat("shape ", shape, " is too large"));
  }
  if (needed != tensor.data().size()) {
    return Bad(field,
               absl::StrCat("data has ", tensor.data().size(), " bytes, but shape ", shape, " of ",
                            v1::DataType_Name(type.wire), " needs ", absl::Uint128Low64(needed)));
  }
  return absl::OkStatus();
}

absl::StatusOr<HostTensor> ToHostTensor(const v1::Tensor& tensor, std::string_view field,
                                        bool floats_only) {
  if (tensor.ByteSizeLong() == 0) return Bad(field, "is required: a tensor");
  ASSIGN_OR_RETURN(const WireType type, FindType(tensor, field, floats_only));
  RETURN_IF_ERROR(CheckSize(tensor, type, field));
  HostTensor result{type.dtype, {tensor.shape().begin(), tensor.shape().end()}, tensor.data()};
  if (std::optional<std::size_t> index = FirstNotFinite(result); index.has_value()) {
    return Bad(field, absl::StrCat("element ", *index, " is not a finite number"));
  }
  return result;
}

}  // namespace

absl::StatusOr<HostTensor> ToFloatTensor(const v1::Tensor& tensor, std::string_view field) {
  return ToHostTensor(tensor, field, /*floats_only=*/true);
}

absl::StatusOr<HostTensor> ToAnyTensor(const v1::Tensor& tensor, std::string_view field) {
  return ToHostTensor(tensor, field, /*floats_only=*/false);
}

void ToProto(HostTensor tensor, v1::Tensor* out) {
  for (const WireType& type : kWireTypes) {
    if (type.dtype == tensor.dtype) out->set_dtype(type.wire);
  }
  out->mutable_shape()->Assign(tensor.shape.begin(), tensor.shape.end());
  out->set_data(std::move(tensor.data));
}

}  // namespace distorch
