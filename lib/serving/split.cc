#include "lib/serving/split.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/sha256.h"
#include "lib/base/status_macros.h"
#include "lib/distorch/auto_allocation.h"
#include "lib/distorch/placement.h"
#include "lib/serving/storage_rule.h"

namespace distorch {
namespace {

// What must stay free for more than weights: several of the largest layer's inputs and outputs are
// alive at once, and a CPU's memory is everybody's.
constexpr int64_t kLayersAlive = 4;
constexpr double kCpuShare = 0.95;

StepWork WorkOf(const SplitRequest& request, c10::ScalarType dtype) {
  const auto element_bytes = static_cast<int64_t>(c10::elementSize(dtype));
  if (request.kind == ComponentKind::kClip)
    return models::TextWork(models::ShapeOf(request.component->store()), 1, element_bytes);
  const auto& model = static_cast<const models::DiffusionModel&>(*request.component);
  const int64_t side = request.family->native_side / model.latent_format().downscale;
  return model.Work({.height = side,
                     .width = side,
                     .batch = request.family->native_batch,
                     .element_bytes = element_bytes});
}

std::vector<int64_t> UsableBytes(const StepModel& model, const BytesByDevice& free) {
  std::vector<int64_t> usable;
  for (const DeviceId& device : model.devices) {
    const auto found = free.find(device);
    int64_t bytes = found == free.end() || device.is_disk() ? 0 : found->second;
    if (device.is_cpu()) {
      bytes = static_cast<int64_t>(kCpuShare * static_cast<double>(bytes));
    } else {
      bytes -= kLayersAlive * model.work.largest_activations;
    }
    usable.push_back(std::max<int64_t>(0, bytes));
  }
  return usable;
}

absl::StatusOr<std::string> DigestOf(const StepPlacement& step) {
  constexpr size_t kDigits = 16;
  Sha256 hash;
  hash.Update(absl::StrCat(absl::StrJoin(step.assignment, ","), "|",
                           absl::StrJoin(step.unit_devices, ",")));
  ASSIGN_OR_RETURN(const std::string digest, hash.HexDigest());
  return digest.substr(0, kDigits);
}

// One decision.
class Decision {
 public:
  Decision(const SplitRequest& request, const SplitContext& context)
      : request_(request), context_(context), is_auto_(IsAutoAllocation(request.fields)) {}

  absl::StatusOr<Split> Run() && {
    ASSIGN_OR_RETURN(const Allocation allocation,
                     ParseSplitFields(request_.fields, context_.devices));
    step_.compute = allocation.compute_device;
    const WeightStore& store = request_.component->store();
    step_.dtype = context_.devices.ComputeDtype(step_.compute, MainDtype(store));
    if (is_auto_) {
      step_.assignment.assign(store.slots().size(), context_.forecasts->PositionOf(step_.compute));
    } else {
      Assign(MakePlan(
          store.Blocks(), allocation, WithDisk(context_.devices.Memory()),
          {.mode = request_.reference_rounding ? PlannerMode::kReference : PlannerMode::kExact,
           .is_text_encoder = request_.kind == ComponentKind::kClip}));
    }
    MeasureBlocks();
    RETURN_IF_ERROR(is_auto_ ? Choose() : PlaceUnits());
    split_.step = std::move(step_);
    return std::move(split_);
  }

 private:
  void Assign(const Plan& plan) {
    for (int index : plan.assignment) {
      step_.assignment.push_back(
          context_.forecasts->PositionOf(plan.devices[static_cast<size_t>(index)]));
    }
  }

  // The blocks' bytes where they are assigned to.
  void MeasureBlocks() {
    const WeightStore& store = request_.component->store();
    const StorageRule storage(step_.compute,
                              context_.devices.StorageDtype(step_.compute, MainDtype(store)),
                              request_.weight_dtype);
    const auto& slots = store.slots();
    for (size_t i = 0; i < slots.size(); ++i) {
      const DeviceId& device =
          context_.forecasts->devices()[static_cast<size_t>(step_.assignment[i])];
      step_.bytes.push_back(
          TargetBytes({slots[i].get(), c10::kCPU, storage.DtypesFor(*slots[i], device)}));
    }
  }

  absl::StatusOr<StepModel> Model() {
    return context_.forecasts->ModelOf(request_.ckpt_name, WorkOf(request_, step_.dtype), step_);
  }

  // As the fields assign the blocks.
  absl::Status PlaceUnits() {
    if (request_.kind != ComponentKind::kModel) return absl::OkStatus();
    absl::StatusOr<StepModel> model = Model();
    // Nothing hangs on a prediction where everything computes in one place.
    if (!model.ok() && context_.execution == Execution::kCompute) {
      step_.unit_devices.assign(request_.component->store().units().size(),
                                context_.forecasts->PositionOf(step_.compute));
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(model.status());
    const StepPredictor predictor(*std::move(model));
    if (context_.execution != Execution::kAuto) {
      Take(predictor.PlaceUnits(context_.execution, step_.assignment));
      return absl::OkStatus();
    }
    const auto decided = context_.find_decided(request_.request);
    if (decided && decided->assignment == step_.assignment && HasMyUnits(*decided)) {
      TakeDecided(predictor, *decided);
    } else {
      Take(predictor.PlaceUnits(context_.execution, step_.assignment));
    }
    ASSIGN_OR_RETURN(split_.digest, DigestOf(step_));
    return absl::OkStatus();
  }

  void Take(UnitPlan units) {
    step_.unit_devices = std::move(units.devices);
    split_.step_seconds = units.step_seconds;
  }
  bool HasMyUnits(const DecidedSplit& decided) const {
    return decided.unit_devices.size() == request_.component->store().units().size();
  }
  void TakeDecided(const StepPredictor& predictor, const DecidedSplit& decided) {
    step_.assignment = decided.assignment;
    Take({decided.unit_devices, predictor.Seconds(decided.assignment, decided.unit_devices)});
  }

  // As is fastest.
  absl::Status Choose() {
    ASSIGN_OR_RETURN(StepModel model, Model());
    const StepPredictor predictor(std::move(model));
    std::string_view way = "as loaded";
    const auto decided = context_.find_decided(request_.request);
    if (decided && decided->assignment.size() == step_.assignment.size() && HasMyUnits(*decided)) {
      TakeDecided(predictor, *decided);
    } else {
      AutoOptions options;
      options.usable_bytes = UsableBytes(predictor.model(), context_.free);
      options.leaves_room_to_stage = true;
      options.is_text_encoder = request_.kind == ComponentKind::kClip;
      options.execution = context_.execution;
      AutoPlan plan =
          AllocateAutomatically(predictor, request_.component->store().Blocks(), options);
      step_.assignment = std::move(plan.assignment);
      Take(std::move(plan.units));
      way = plan.way;
    }
    if (request_.kind != ComponentKind::kModel) split_.step_seconds = 0;
    split_.decided =
        absl::StrCat(DescribeSplit(step_.assignment, predictor.model()), " (", way, ")");
    ASSIGN_OR_RETURN(split_.digest, DigestOf(step_));
    return absl::OkStatus();
  }

  const SplitRequest& request_;
  const SplitContext& context_;
  const bool is_auto_;
  StepPlacement step_;
  Split split_;
};

}  // namespace

bool IsAutoAllocation(const AllocationFields& fields) {
  const std::string_view text = absl::StripAsciiWhitespace(fields.expert_mode_allocations);
  return text == kAutoAllocation;
}

absl::StatusOr<Allocation> ParseSplitFields(AllocationFields fields, const DeviceManager& devices) {
  if (IsAutoAllocation(fields)) fields.expert_mode_allocations.clear();
  return ParseAllocation(fields, WithDisk(devices.Memory()));
}

absl::StatusOr<Split> DecideSplit(const SplitRequest& request, const SplitContext& context) {
  return Decision(request, context).Run();
}

}  // namespace distorch
