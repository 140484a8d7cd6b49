// The types that weights are stored and computed in.
#ifndef LIB_SERVING_STORAGE_RULE_H_
#define LIB_SERVING_STORAGE_RULE_H_

#include <c10/core/ScalarType.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/base/dtype.h"
#include "lib/device/device_id.h"
#include "lib/distorch/weight_store.h"

namespace distorch {

// The field weight_dtype; nullopt for "default". INVALID_ARGUMENT says what is allowed.
absl::StatusOr<std::optional<DType>> ParseWeightDtype(const std::string& name);

// The type most of the component's bytes have; for one that is only to store in, bfloat16.
c10::ScalarType MainDtype(const WeightStore& store);

// What a slot's weights become on a device: what `weight_dtype` says; else they stay as they are in
// the file, but for those that a CPU which computes would only convert again and again. Quantized
// and fp8 ones stay small even there.
class StorageRule {
 public:
  // `dtype` is what a CPU that computes stores: DeviceManager::StorageDtype.
  StorageRule(DeviceId compute, c10::ScalarType dtype, std::optional<DType> override_dtype);

  std::vector<DType> DtypesFor(const WeightSlot& slot, const DeviceId& device) const;

 private:
  DType DtypeFor(DType file_dtype, const DeviceId& device) const;

  DeviceId compute_;
  DType dtype_;
  std::optional<DType> override_;
};

}  // namespace distorch

#endif  // LIB_SERVING_STORAGE_RULE_H_
