#include "lib/base/dtype.h"

#include <array>

namespace distorch {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  DTypeBlock block;
};

// In the order of the enum.
constexpr std::array<Entry, 24> kTable = {{
    {DType::kBool, "BOOL", {1, 1}},       {DType::kU8, "U8", {1, 1}},
    {DType::kI8, "I8", {1, 1}},           {DType::kI16, "I16", {1, 2}},
    {DType::kI32, "I32", {1, 4}},         {DType::kI64, "I64", {1, 8}},
    {DType::kF8E4M3, "F8_E4M3", {1, 1}},  {DType::kF8E5M2, "F8_E5M2", {1, 1}},
    {DType::kF16, "F16", {1, 2}},         {DType::kBF16, "BF16", {1, 2}},
    {DType::kF32, "F32", {1, 4}},         {DType::kF64, "F64", {1, 8}},
    {DType::kQ4_0, "Q4_0", {32, 18}},     {DType::kQ4_1, "Q4_1", {32, 20}},
    {DType::kQ5_0, "Q5_0", {32, 22}},     {DType::kQ5_1, "Q5_1", {32, 24}},
    {DType::kQ8_0, "Q8_0", {32, 34}},     {DType::kQ2_K, "Q2_K", {256, 84}},
    {DType::kQ3_K, "Q3_K", {256, 110}},   {DType::kQ4_K, "Q4_K", {256, 144}},
    {DType::kQ5_K, "Q5_K", {256, 176}},   {DType::kQ6_K, "Q6_K", {256, 210}},
    {DType::kIQ4_NL, "IQ4_NL", {32, 18}}, {DType::kIQ4_XS, "IQ4_XS", {256, 136}},
}};

constexpr const Entry& EntryOf(DType dtype) { return kTable[static_cast<std::size_t>(dtype)]; }

}  // namespace

DTypeBlock BlockOf(DType dtype) { return EntryOf(dtype).block; }

bool IsQuantized(DType dtype) { return EntryOf(dtype).block.elements > 1; }

std::size_t DTypeSize(DType dtype) { return EntryOf(dtype).block.bytes; }

std::string_view DTypeName(DType dtype) { return EntryOf(dtype).name; }

std::optional<DType> ParseDType(std::string_view name) {
  for (const Entry& entry : kTable) {
    if (entry.name == name) return entry.dtype;
  }
  return std::nullopt;
}

}  // namespace distorch
