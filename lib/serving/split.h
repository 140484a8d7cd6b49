// Where the blocks of a component go and its units run: as the node's fields say, or as "auto"
// finds best.
#ifndef LIB_SERVING_SPLIT_H_
#define LIB_SERVING_SPLIT_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "lib/device/device_manager.h"
#include "lib/distorch/allocation.h"
#include "lib/distorch/execution.h"
#include "lib/distorch/ledger.h"
#include "lib/models/family.h"
#include "lib/serving/forecasts.h"
#include "lib/serving/registry.h"
#include "lib/serving/stored_handle.h"

namespace distorch {

// What splits are decided with, beside the client's fields.
struct SplitContext {
  const DeviceManager& devices;
  StepForecasts* forecasts = nullptr;
  Execution execution = Execution::kCompute;
  // What "auto" may use of each device.
  BytesByDevice free;
  // What was decided for an equal request that is loaded, or to be loaded again; with positions in
  // forecasts->devices(). nullopt: there is none.
  std::function<std::optional<DecidedSplit>(const std::string& request)> find_decided;
};

// One component and what is asked for it.
struct SplitRequest {
  ComponentKind kind = ComponentKind::kModel;  // or kClip
  const nn::Component* component = nullptr;
  const models::ModelFamily* family = nullptr;
  std::string ckpt_name;
  AllocationFields fields;
  bool reference_rounding = false;
  std::optional<DType> weight_dtype;
  // All that a client asked for and this component depends on: what "auto" decided for an equal
  // request that is still loaded is decided again, however little memory that left free.
  std::string request;
};

struct Split {
  StepPlacement step;
  double step_seconds = 0;  // of a usual step; 0: not known, or no diffusion model
  // What was decided beside the fields: "cuda:0,3.20gb;cpu,1.10gb (spread)", and in short what
  // makes it another component; empty where the fields alone decide.
  std::string decided, digest;
};

// Whether the expert string asks for a split to be chosen.
bool IsAutoAllocation(const AllocationFields& fields);

// `fields` as ParseAllocation reads them, but for an expert string that is "auto": then the others
// alone. INVALID_ARGUMENT names the field.
absl::StatusOr<Allocation> ParseSplitFields(AllocationFields fields, const DeviceManager& devices);

// INVALID_ARGUMENT names the field; with "auto", the donors' field is checked and not used: every
// device may hold blocks.
absl::StatusOr<Split> DecideSplit(const SplitRequest& request, const SplitContext& context);

}  // namespace distorch

#endif  // LIB_SERVING_SPLIT_H_
