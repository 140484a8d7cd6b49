#include "lib/serving/load_plan.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_dtype.h"
#include "lib/distorch/allocation.h"

namespace distorch {
namespace {

// The node's defaults.
constexpr double kDefaultUnetVirtualVramGb = 4.0;
constexpr double kDefaultClipVirtualVramGb = 2.0;

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

bool IsFloat8(DType dtype) { return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2; }

// The type most of the component's bytes have; for one that is only to store in, bfloat16.
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

// What a slot's weights become on a device: what `weight_dtype` says; else they stay as they are in
// the file, but for those that a CPU which computes would only convert again and again. Quantized
// and fp8 ones stay small even there.
class StorageRule {
 public:
  StorageRule(DeviceId compute, c10::ScalarType compute_dtype, std::optional<DType> override_dtype)
      : compute_(std::move(compute)),
        compute_dtype_(ToDType(compute_dtype)),
        override_(override_dtype) {}

  std::vector<DType> DtypesFor(const WeightSlot& slot, const DeviceId& device) const {
    std::vector<DType> dtypes;
    for (const Param& param : slot.params()) dtypes.push_back(DtypeFor(param.file_dtype, device));
    return dtypes;
  }

 private:
  DType DtypeFor(DType file_dtype, const DeviceId& device) const {
    if (override_) return *override_;
    const bool stays = IsQuantized(file_dtype) || IsFloat8(file_dtype);
    return device.is_cpu() && compute_.is_cpu() && !stays ? compute_dtype_ : file_dtype;
  }

  DeviceId compute_;
  DType compute_dtype_;
  std::optional<DType> override_;
};

AllocationFields UnetFields(const LoadSpec& spec, const std::string& default_device) {
  AllocationFields fields;
  fields.field_prefix = "unet";
  fields.compute_device = spec.unet_compute_device.value_or(default_device);
  fields.virtual_vram_gb = spec.unet_virtual_vram_gb.value_or(kDefaultUnetVirtualVramGb);
  fields.donor_device = spec.unet_donor_device.value_or("cpu");
  fields.expert_mode_allocations = spec.unet_expert_mode_allocations.value_or("");
  return fields;
}

AllocationFields ClipFields(const LoadSpec& spec) {
  AllocationFields fields;
  fields.field_prefix = "clip";
  fields.compute_device = spec.clip_compute_device.value_or("cpu");
  fields.virtual_vram_gb = spec.clip_virtual_vram_gb.value_or(kDefaultClipVirtualVramGb);
  fields.donor_device = spec.clip_donor_device.value_or("cpu");
  fields.expert_mode_allocations = spec.clip_expert_mode_allocations.value_or("");
  return fields;
}

// Lays the slots out as `device_of` says, the buffers on `compute`, and fills everything that
// follows from it.
ComponentLoadPlan LayOut(ComponentKind kind, std::unique_ptr<nn::Component> component,
                         const DeviceId& compute, const std::vector<DeviceId>& device_of,
                         std::optional<DType> weight_dtype, const DeviceManager& devices) {
  ComponentLoadPlan plan;
  plan.kind = kind;
  const c10::ScalarType dtype = devices.ComputeDtype(compute, MainDtype(component->store()));
  component->set_compute({devices.TorchDevice(compute), dtype});
  const StorageRule storage(compute, dtype, weight_dtype);

  plan.placement.component = kind == ComponentKind::kModel ? "unet" : ComponentKindName(kind);
  plan.placement.compute_device = compute.ToString();
  std::map<DeviceId, DeviceBytes> by_device;
  const auto place = [&](WeightSlot* slot, const DeviceId& device) {
    const SlotTarget target{
        slot, device.is_disk() ? c10::Device(c10::kMeta) : devices.TorchDevice(device),
        storage.DtypesFor(*slot, device)};
    const int64_t bytes = TargetBytes(target);
    plan.targets.push_back(target);
    if (!device.is_disk()) plan.need[device] += bytes;
    plan.placement.blocks.push_back({slot->name(), device.ToString(), bytes});
    DeviceBytes& total = by_device[device];
    total.device = device.ToString();
    total.planned_bytes += bytes;
    ++total.blocks;
  };
  const auto& slots = component->store().slots();
  for (size_t i = 0; i < slots.size(); ++i) place(slots[i].get(), device_of[i]);
  for (const auto& buffer : component->store().buffers()) place(buffer.get(), compute);
  for (auto& [device, bytes] : by_device) plan.placement.devices.push_back(std::move(bytes));
  plan.component = std::move(component);
  return plan;
}

// Decides where the units run, by where their blocks will lie.
void PlaceUnits(Execution execution, const DeviceManager& devices, const DeviceId& compute,
                std::span<const DeviceId> device_of, ComponentLoadPlan* plan) {
  if (execution == Execution::kCompute) return;
  std::vector<UnitSpan> units;
  for (const auto& unit : plan->component->store().units())
    units.push_back({unit->first_slot, unit->end_slot});
  std::vector<int64_t> bytes;
  for (const SlotTarget& target : plan->targets) bytes.push_back(TargetBytes(target));
  for (const DeviceId& device : HoldersOf(units, bytes, device_of, compute)) {
    ++plan->placement.units[device.ToString()];
    const bool elsewhere = device != compute;
    plan->unit_devices.push_back(elsewhere ? std::optional(devices.TorchDevice(device))
                                           : std::nullopt);
  }
}

LoaderFields NodeFields(const AllocationFields& fields) {
  const std::string& prefix = fields.field_prefix;
  return {{prefix + "_compute_device", fields.compute_device},
          {prefix + "_virtual_vram_gb", fields.virtual_vram_gb},
          {prefix + "_donor_device", fields.donor_device},
          {prefix + "_expert_mode_allocations", fields.expert_mode_allocations}};
}

absl::StatusOr<ComponentLoadPlan> PlanSplit(ComponentKind kind,
                                            std::unique_ptr<nn::Component> component,
                                            const AllocationFields& fields, bool reference_rounding,
                                            std::optional<DType> weight_dtype,
                                            const DeviceManager& devices, Execution execution) {
  const std::vector<DeviceMemory> memory = WithDisk(devices.Memory());
  ASSIGN_OR_RETURN(const Allocation allocation, ParseAllocation(fields, memory));
  PlannerOptions options;
  options.mode = reference_rounding ? PlannerMode::kReference : PlannerMode::kExact;
  options.is_text_encoder = kind == ComponentKind::kClip;
  const Plan plan = MakePlan(component->store().Blocks(), allocation, memory, options);
  std::vector<DeviceId> device_of;
  for (int index : plan.assignment) device_of.push_back(plan.devices[static_cast<size_t>(index)]);
  ComponentLoadPlan result = LayOut(kind, std::move(component), allocation.compute_device,
                                    device_of, weight_dtype, devices);
  PlaceUnits(execution, devices, allocation.compute_device, device_of, &result);
  result.placement.allocation = FormatAllocation(fields);
  result.fields = NodeFields(fields);
  return result;
}

absl::StatusOr<DeviceId> ParseVaeDevice(const std::string& field, const DeviceManager& devices) {
  const absl::StatusOr<DeviceId> device = ParseDeviceId(field);
  if (!device.ok() || !devices.Has(*device)) {
    return absl::InvalidArgumentError(absl::StrCat("vae_device: unknown device \"", field,
                                                   "\"; known devices: ", devices.KnownNames()));
  }
  return *device;
}

ComponentLoadPlan PlanVae(std::unique_ptr<nn::Component> component, const DeviceId& device,
                          const DeviceManager& devices) {
  const std::vector<DeviceId> device_of(component->store().slots().size(), device);
  ComponentLoadPlan plan =
      LayOut(ComponentKind::kVae, std::move(component), device, device_of, std::nullopt, devices);
  plan.placement.allocation = device.ToString();
  plan.fields = {{"vae_device", device.ToString()}};
  return plan;
}

}  // namespace

BytesByDevice LoadPlan::need() const {
  BytesByDevice total;
  for (const ComponentLoadPlan& component : components) {
    for (const auto& [device, bytes] : component.need) total[device] += bytes;
  }
  return total;
}

absl::Status InCheckpoint(const std::string& ckpt_name, const absl::Status& status) {
  return Within(absl::StrCat("ckpt_name: ", ckpt_name), status);
}

absl::StatusOr<std::shared_ptr<const CheckpointFile>> OpenCheckpoint(const ModelFolders& folders,
                                                                     const std::string& ckpt_name) {
  auto path = folders.Resolve(ckpt_name);
  if (!path.ok()) return Within("ckpt_name", path.status());
  auto file = CheckpointFile::Open(*path);
  if (!file.ok()) return InCheckpoint(ckpt_name, file.status());
  return file;
}

absl::StatusOr<LoadPlan> MakeLoadPlan(const LoadSpec& spec,
                                      std::shared_ptr<const CheckpointFile> file,
                                      models::Skeleton skeleton, const DeviceManager& devices,
                                      Execution execution) {
  if (spec.lease_seconds.value_or(0) < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("lease_seconds: ", *spec.lease_seconds,
                     " is negative; allowed: 0 (until unloaded) or more"));
  }
  ASSIGN_OR_RETURN(const std::optional<DType> weight_dtype,
                   ParseWeightDtype(spec.weight_dtype.value_or("default")));
  if (spec.execution) {
    const absl::StatusOr<Execution> parsed = ParseExecution(*spec.execution);
    if (!parsed.ok()) return Within("execution", parsed.status());
    execution = *parsed;
  }
  const std::string default_device = devices.default_device().ToString();
  const bool rounding = spec.reference_rounding.value_or(false);

  LoadPlan plan;
  plan.ckpt_name = spec.ckpt_name;
  plan.family = skeleton.family->name;
  plan.file = std::move(file);
  const auto add = [&](absl::StatusOr<ComponentLoadPlan> component,
                       std::string_view extra) -> absl::Status {
    RETURN_IF_ERROR(component.status());
    component->identity =
        absl::StrCat(component->placement.allocation, "|",
                     c10::toString(component->component->compute().dtype), "|", extra);
    plan.components.push_back(*std::move(component));
    return absl::OkStatus();
  };
  // Fields are checked whether or not the file has the component: a typing error must not depend on
  // the checkpoint.
  const AllocationFields unet = UnetFields(spec, default_device), clip = ClipFields(spec);
  plan.high_precision_loras = spec.high_precision_loras.value_or(true);
  const std::string loras = plan.high_precision_loras ? "high_precision_loras" : "";
  const std::string executed =
      execution == Execution::kCompute ? "" : absl::StrCat("|", ExecutionName(execution));
  RETURN_IF_ERROR(
      add(PlanSplit(ComponentKind::kModel, std::move(skeleton.unet), unet, rounding, weight_dtype,
                    devices, execution),
          absl::StrCat(rounding, loras, spec.weight_dtype.value_or("default"), executed)));
  RETURN_IF_ERROR(ParseAllocation(clip, WithDisk(devices.Memory())).status());
  if (skeleton.clip != nullptr) {
    RETURN_IF_ERROR(add(PlanSplit(ComponentKind::kClip, std::move(skeleton.clip), clip, rounding,
                                  std::nullopt, devices, Execution::kCompute),
                        absl::StrCat(rounding, loras)));
  }
  ASSIGN_OR_RETURN(const DeviceId vae_device,
                   ParseVaeDevice(spec.vae_device.value_or(default_device), devices));
  if (skeleton.vae != nullptr) {
    RETURN_IF_ERROR(add(PlanVae(std::move(skeleton.vae), vae_device, devices), ""));
  }
  return plan;
}

}  // namespace distorch
