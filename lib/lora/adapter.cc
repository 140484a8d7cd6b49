#include "lib/lora/adapter.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_dtype.h"
#include "lib/base/torch_status.h"
#include "lib/base/utf8.h"
#include "lib/lora/adapter_patch.h"
#include "lib/lora/stochastic_rounding.h"

namespace distorch::lora {
namespace {

// No weight has more dimensions.
constexpr int64_t kMaxReshapeDims = 8;

absl::StatusOr<at::Tensor> ReadTensor(const CheckpointFile& file, const TensorInfo& info) {
  at::Tensor tensor = at::empty(info.shape, ToScalarType(info.dtype));
  RETURN_IF_ERROR(
      file.Read(info, 0, {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()}));
  return tensor;
}

absl::StatusOr<std::vector<double>> ReadNumbers(const CheckpointFile& file, const TensorInfo& info,
                                                int64_t at_most) {
  if (IsQuantized(info.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(info.name), " has dtype ",
                                                   DTypeName(info.dtype), ", expected numbers"));
  }
  if (info.elements() < 1 || info.elements() > at_most) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(info.name), " has shape ",
                                                   ShapeString(info.shape), ", expected 1 to ",
                                                   at_most, " numbers"));
  }
  return RunTorchOr<std::vector<double>>([&]() -> absl::StatusOr<std::vector<double>> {
    ASSIGN_OR_RETURN(const at::Tensor tensor, ReadTensor(file, info));
    const at::Tensor wide = tensor.to(at::kDouble).reshape(-1);
    const std::span<const double> values(wide.const_data_ptr<double>(),
                                         static_cast<size_t>(wide.numel()));
    for (double value : values) {
      if (!std::isfinite(value))
        return absl::InvalidArgumentError(absl::StrCat(Quoted(info.name), " is not finite"));
    }
    return std::vector<double>(values.begin(), values.end());
  });
}

std::vector<int64_t> ShapeOf(const Target& target, size_t param) {
  std::vector<int64_t> shape = target.slot->params()[param].shape;
  if (target.rows.count != 0) shape[0] = target.rows.count;
  return shape;
}

// Makes one component's plan.
class Planner {
 public:
  explicit Planner(const CheckpointFile& file) : file_(file) {}

  absl::Status AddModule(const Target& target, const ModuleTensors& tensors) {
    ASSIGN_OR_RETURN(const Algorithm* const algorithm, FindAlgorithm(tensors));
    if (algorithm != nullptr) RETURN_IF_ERROR(AddWeight(target, *algorithm, tensors));
    if (const TensorInfo* bias = tensors[Part::kDiffBias]) RETURN_IF_ERROR(AddBias(target, *bias));
    return absl::OkStatus();
  }

  AdapterPlan Take() {
    for (auto& [where, patch] : patches_) plan_.patches.push_back(patch);
    return std::move(plan_);
  }

 private:
  absl::Status AddWeight(const Target& target, const Algorithm& algorithm,
                         const ModuleTensors& tensors) {
    const std::vector<int64_t> shape = ShapeOf(target, target.param);
    PatchPlan patch{target, &algorithm};
    for (Part part : algorithm.parts) RETURN_IF_ERROR(Keep(tensors, part, &patch));
    ASSIGN_OR_RETURN(const int64_t rank, algorithm.check(tensors, shape));
    RETURN_IF_ERROR(CheckReshape(tensors, shape));
    if (const TensorInfo* alpha = tensors[Part::kAlpha]) {
      plan_.matched.insert(alpha);
      ASSIGN_OR_RETURN(const std::vector<double> value, ReadNumbers(file_, *alpha, 1));
      if (rank != 0) patch.scale = value[0] / static_cast<double>(rank);
    }
    if (const TensorInfo* magnitude = tensors[Part::kDoraScale]) {
      RETURN_IF_ERROR(Keep(tensors, Part::kDoraScale, &patch));
      RETURN_IF_ERROR(CheckMagnitude(*magnitude, shape));
    }
    Put(std::move(patch));
    return absl::OkStatus();
  }

  absl::Status AddBias(const Target& target, const TensorInfo& bias) {
    const size_t param = target.param + 1;
    if (param >= target.slot->params().size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Quoted(bias.name), ": ", target.slot->name(), " has no bias"));
    }
    ModuleTensors tensors;
    tensors.Set(Part::kDiff, &bias);
    Target to = target;
    to.param = param;
    ASSIGN_OR_RETURN(const Algorithm* const algorithm, FindAlgorithm(tensors));
    return AddWeight(to, *algorithm, tensors);
  }

  absl::Status Keep(const ModuleTensors& tensors, Part part, PatchPlan* patch) {
    const TensorInfo* const tensor = tensors[part];
    if (tensor == nullptr) return absl::OkStatus();
    if (!IsFloating(tensor->dtype)) {
      return absl::InvalidArgumentError(absl::StrCat(Quoted(tensor->name), " has dtype ",
                                                     DTypeName(tensor->dtype),
                                                     ", expected a floating-point type"));
    }
    plan_.matched.insert(tensor);
    patch->tensors[static_cast<size_t>(part)] = tensor;
    return absl::OkStatus();
  }

  absl::Status CheckReshape(const ModuleTensors& tensors, const std::vector<int64_t>& shape) {
    const TensorInfo* const reshape = tensors[Part::kReshape];
    if (reshape == nullptr) return absl::OkStatus();
    plan_.matched.insert(reshape);
    ASSIGN_OR_RETURN(const std::vector<double> wanted,
                     ReadNumbers(file_, *reshape, kMaxReshapeDims));
    if (std::equal(wanted.begin(), wanted.end(), shape.begin(), shape.end(),
                   [](double a, int64_t b) { return a == static_cast<double>(b); })) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat(
        Quoted(reshape->name), " would change a weight's shape from ", ShapeString(shape),
        "; adapters that add inputs to a model are not supported"));
  }

  void Put(PatchPlan patch) {
    const auto where = std::make_tuple(patch.target.slot->name(), patch.target.param,
                                       patch.target.rows.first, patch.target.rows.count);
    patches_[where] = std::move(patch);
  }

  const CheckpointFile& file_;
  AdapterPlan plan_;
  // A target that an adapter has under two names is changed once, as in the reference.
  std::map<std::tuple<std::string, size_t, int64_t, int64_t>, PatchPlan> patches_;
};

// The reference rounds what it stores on the CPU in fp8.
bool IsFp8OnCpu(const WeightSlot& slot, size_t param) {
  const at::Tensor stored = slot.stored()[param];
  const DType file_dtype = slot.params()[param].file_dtype;
  return stored.is_cpu() && (c10::isFloat8Type(stored.scalar_type()) ||
                             file_dtype == DType::kF8E4M3 || file_dtype == DType::kF8E5M2);
}

}  // namespace

std::vector<const TensorInfo*> AdapterPlan::tensors() const {
  absl::flat_hash_set<const TensorInfo*> unique;
  for (const PatchPlan& patch : patches) {
    for (const TensorInfo* tensor : patch.tensors) {
      if (tensor != nullptr) unique.insert(tensor);
    }
  }
  std::vector<const TensorInfo*> sorted(unique.begin(), unique.end());
  std::sort(sorted.begin(), sorted.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::tie(a->file, a->offset, a->name) < std::tie(b->file, b->offset, b->name);
  });
  return sorted;
}

absl::StatusOr<AdapterPlan> PlanAdapter(const CheckpointFile& file, const AdapterModules& modules,
                                        const WeightStore& store) {
  Planner planner(file);
  for (const TargetName& name : TargetNames(store)) {
    auto found = modules.by_name.find(name.name);
    if (found == modules.by_name.end()) continue;
    RETURN_IF_ERROR(planner.AddModule(name.target, found->second));
  }
  return planner.Take();
}

void AttachAdapter(const AdapterPlan& plan, const AdapterTensors& tensors,
                   const AttachOptions& options) {
  for (const PatchPlan& patch : plan.patches) {
    const Target& target = patch.target;
    ByPart<at::Tensor> parts;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (patch.tensors[i] != nullptr) parts[i] = tensors.Find(*patch.tensors[i]);
    }
    const AdapterPatch::Options of{patch.algorithm, target.rows, patch.scale, options.strength};
    target.slot->AddPatch(target.param, std::make_shared<AdapterPatch>(of, std::move(parts)));
    if (options.round_to_fp8 && IsFp8OnCpu(*target.slot, target.param)) {
      const char* const end = target.param == 0 ? ".weight" : ".bias";
      target.slot->set_rounding(
          target.param,
          std::make_shared<StochasticRounding>(RoundingSeed(absl::StrCat(target.slot->name(), end)),
                                               target.slot->file_scale(target.param)));
    }
  }
}

}  // namespace distorch::lora
