#include "lib/serving/storage_rule.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "lib/base/torch_dtype.h"

namespace distorch {
namespace {

bool IsFloat8(DType dtype) { return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2; }

}  // namespace

absl::StatusOr<std::optional<DType>> ParseWeightDtype(const std::string& name) {
  static const auto* const kTypes = new absl::flat_hash_map<std::string, std::optional<DType>>{
      {"default", std::nullopt}, {"fp32", DType::kF32},          {"fp16", DType::kF16},
      {"bf16", DType::kBF16},    {"fp8_e4m3fn", DType::kF8E4M3}, {"fp8_e5m2", DType::kF8E5M2}};
  auto found = kTypes->find(name);
  if (found != kTypes->end()) return found->second;
  return absl::InvalidArgumentError(
      absl::StrCat("weight_dtype: \"", name,
                   "\" is unknown; allowed: default, fp32, fp16, bf16, fp8_e4m3fn, fp8_e5m2"));
}

c10::ScalarType MainDtype(const WeightStore& store) {
  absl::flat_hash_map<DType, int64_t> bytes;
  for (const auto& slot : store.slots()) {
    for (const Param& param : slot->params()) bytes[param.file_dtype] += param.file_bytes();
  }
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (IsQuantized(most->first) || IsFloat8(most->first)) return c10::ScalarType::BFloat16;
  return ToScalarType(most->first);
}

StorageRule::StorageRule(DeviceId compute, c10::ScalarType dtype,
                         std::optional<DType> override_dtype)
    : compute_(std::move(compute)), dtype_(ToDType(dtype)), override_(override_dtype) {}

std::vector<DType> StorageRule::DtypesFor(const WeightSlot& slot, const DeviceId& device) const {
  std::vector<DType> dtypes;
  for (const Param& param : slot.params()) dtypes.push_back(DtypeFor(param.file_dtype, device));
  return dtypes;
}

DType StorageRule::DtypeFor(DType file_dtype, const DeviceId& device) const {
  if (override_) return *override_;
  const bool stays = IsQuantized(file_dtype) || IsFloat8(file_dtype);
  return device.is_cpu() && compute_.is_cpu() && !stays ? dtype_ : file_dtype;
}

}  // namespace distorch
