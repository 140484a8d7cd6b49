#include "lib/serving/load_plan.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/distorch/allocation.h"
#include "lib/serving/storage_rule.h"

namespace distorch {
namespace {

// The node's defaults.
constexpr double kDefaultUnetVirtualVramGb = 4.0;
constexpr double kDefaultClipVirtualVramGb = 2.0;

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
// follows from it; of the identity, the types.
ComponentLoadPlan LayOut(ComponentKind kind, std::unique_ptr<nn::Component> component,
                         const DeviceId& compute, const std::vector<DeviceId>& device_of,
                         std::optional<DType> weight_dtype, const DeviceManager& devices) {
  ComponentLoadPlan plan;
  plan.kind = kind;
  const c10::ScalarType file_dtype = MainDtype(component->store());
  const c10::ScalarType dtype = devices.ComputeDtype(compute, file_dtype);
  const c10::ScalarType stored = devices.StorageDtype(compute, file_dtype);
  component->set_compute({devices.TorchDevice(compute), dtype});
  const StorageRule storage(compute, stored, weight_dtype);
  plan.identity = c10::toString(dtype);
  if (stored != dtype) absl::StrAppend(&plan.identity, " of ", c10::toString(stored));

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

LoaderFields NodeFields(const AllocationFields& fields) {
  const std::string& prefix = fields.field_prefix;
  return {{prefix + "_compute_device", fields.compute_device},
          {prefix + "_virtual_vram_gb", fields.virtual_vram_gb},
          {prefix + "_donor_device", fields.donor_device},
          {prefix + "_expert_mode_allocations", fields.expert_mode_allocations}};
}

// Where units run that do not run where the component computes, for its store; empty: none do.
std::vector<std::optional<c10::Device>> UnitDevices(const StepPlacement& step,
                                                    const StepForecasts& forecasts,
                                                    const DeviceManager& devices) {
  const int compute = forecasts.PositionOf(step.compute);
  const auto elsewhere = [&](int device) { return device != compute; };
  std::vector<std::optional<c10::Device>> result;
  if (std::none_of(step.unit_devices.begin(), step.unit_devices.end(), elsewhere)) return result;
  for (int device : step.unit_devices) {
    result.push_back(elsewhere(device) ? std::optional(devices.TorchDevice(
                                             forecasts.devices()[static_cast<size_t>(device)]))
                                       : std::nullopt);
  }
  return result;
}

absl::StatusOr<ComponentLoadPlan> PlanSplit(SplitRequest request,
                                            std::unique_ptr<nn::Component> component,
                                            const SplitContext& context) {
  request.component = component.get();
  ASSIGN_OR_RETURN(Split split, DecideSplit(request, context));
  const std::vector<DeviceId>& known = context.forecasts->devices();
  std::vector<DeviceId> device_of;
  for (int index : split.step.assignment) device_of.push_back(known[static_cast<size_t>(index)]);
  ComponentLoadPlan plan = LayOut(request.kind, std::move(component), split.step.compute, device_of,
                                  request.weight_dtype, context.devices);
  plan.placement.allocation = FormatAllocation(request.fields);
  plan.identity = absl::StrCat(request.request, "|", plan.identity);
  if (!split.decided.empty()) absl::StrAppend(&plan.placement.allocation, " = ", split.decided);
  if (!split.digest.empty()) absl::StrAppend(&plan.identity, "|", split.digest);
  plan.unit_devices = UnitDevices(split.step, *context.forecasts, context.devices);
  if (!plan.unit_devices.empty()) {
    for (int index : split.step.unit_devices)
      ++plan.placement.units[known[static_cast<size_t>(index)].ToString()];
  }
  plan.request = std::move(request.request);
  plan.step = std::move(split.step);
  plan.predicted_step_seconds = split.step_seconds;
  plan.fields = NodeFields(request.fields);
  return plan;
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
  plan.identity = absl::StrCat(plan.placement.allocation, "|", plan.identity, "|");
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
                                      models::Skeleton skeleton, SplitContext context) {
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
    context.execution = *parsed;
  }
  const DeviceManager& devices = context.devices;
  const std::string default_device = devices.default_device().ToString();

  LoadPlan plan;
  plan.ckpt_name = spec.ckpt_name;
  plan.spec = spec;
  plan.spec.execution = ExecutionName(context.execution);
  plan.family = skeleton.family->name;
  plan.file = std::move(file);
  plan.high_precision_loras = spec.high_precision_loras.value_or(true);
  const bool rounding = spec.reference_rounding.value_or(false);
  const std::string loras = plan.high_precision_loras ? "high_precision_loras" : "";
  SplitRequest unet{.kind = ComponentKind::kModel,
                    .family = skeleton.family,
                    .ckpt_name = spec.ckpt_name,
                    .fields = UnetFields(spec, default_device),
                    .reference_rounding = rounding,
                    .weight_dtype = weight_dtype};
  unet.request = absl::StrCat("unet|", FormatAllocation(unet.fields), "|", rounding, loras,
                              spec.weight_dtype.value_or("default"));
  if (context.execution != Execution::kCompute)
    absl::StrAppend(&unet.request, "|", ExecutionName(context.execution));
  SplitRequest clip{.kind = ComponentKind::kClip,
                    .family = skeleton.family,
                    .ckpt_name = spec.ckpt_name,
                    .fields = ClipFields(spec),
                    .reference_rounding = rounding};
  clip.request = absl::StrCat("clip|", FormatAllocation(clip.fields), "|", rounding, loras);

  // What "auto" decides, it decides last, with what the others leave; the UNet before the text
  // encoders, which run once where it runs at every step.
  std::optional<ComponentLoadPlan> planned[3];
  const auto take = [&](absl::StatusOr<ComponentLoadPlan> component) -> absl::Status {
    RETURN_IF_ERROR(component.status());
    for (const auto& [device, bytes] : component->need) context.free[device] -= bytes;
    planned[static_cast<size_t>(component->kind)] = *std::move(component);
    return absl::OkStatus();
  };
  const auto take_clip = [&]() -> absl::Status {
    // Fields are checked whether or not the file has the component: a typing error must not depend
    // on the checkpoint.
    if (skeleton.clip == nullptr) return ParseSplitFields(clip.fields, devices).status();
    return take(PlanSplit(clip, std::move(skeleton.clip), context));
  };
  ASSIGN_OR_RETURN(const DeviceId vae_device,
                   ParseVaeDevice(spec.vae_device.value_or(default_device), devices));
  if (skeleton.vae != nullptr)
    RETURN_IF_ERROR(take(PlanVae(std::move(skeleton.vae), vae_device, devices)));
  const bool clip_last = IsAutoAllocation(clip.fields);
  if (!clip_last) RETURN_IF_ERROR(take_clip());
  RETURN_IF_ERROR(take(PlanSplit(unet, std::move(skeleton.unet), context)));
  if (clip_last) RETURN_IF_ERROR(take_clip());
  planned[static_cast<size_t>(ComponentKind::kModel)]->fields.emplace_back(
      "high_precision_loras", plan.high_precision_loras);
  for (std::optional<ComponentLoadPlan>& component : planned) {
    if (component) plan.components.push_back(*std::move(component));
  }
  return plan;
}

}  // namespace distorch
