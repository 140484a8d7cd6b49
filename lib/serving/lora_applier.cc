#include "lib/serving/lora_applier.h"

#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/lora/adapter.h"
#include "lib/models/family.h"
#include "lib/serving/loader.h"

namespace distorch {
namespace {

constexpr double kMaxStrength = 100;  // the node's
constexpr size_t kKeysReported = 500;

absl::Status CheckStrength(std::string_view field, double strength) {
  if (std::isfinite(strength) && std::abs(strength) <= kMaxStrength) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      field, ": ", strength, " is out of range; allowed: ", -kMaxStrength, " to ", kMaxStrength));
}

}  // namespace

struct LoraApplier::Adapter {
  std::string name;
  std::shared_ptr<const CheckpointFile> file;
  lora::AdapterModules modules;
  std::string fingerprint;

  absl::Status In(const absl::Status& status) const {
    return Within(absl::StrCat("lora_name: ", name), status);
  }
};

// Tensors of an adapter that some component computes with.
struct LoraApplier::HeldTensors : Holding {
  lora::AdapterTensors tensors;
};

// Components without weights, to be given those of loaded ones. A checkpoint's file is looked into
// once for its model and its text encoders.
class LoraApplier::Skeletons {
 public:
  // A component like `loaded` that shares its weights.
  absl::StatusOr<std::unique_ptr<nn::Component>> BuildLike(const LoadedComponent& loaded) {
    auto found = by_file_.find(loaded.file);
    if (found == by_file_.end()) {
      ASSIGN_OR_RETURN(models::Skeleton skeleton, models::BuildSkeleton(*loaded.file));
      found = by_file_.emplace(loaded.file, std::move(skeleton)).first;
    }
    std::unique_ptr<nn::Component> component;
    if (loaded.kind == ComponentKind::kModel) {
      component = std::move(found->second.unet);
    } else {
      component = std::move(found->second.clip);
    }
    if (component == nullptr)
      return absl::InternalError(absl::StrCat(loaded.base_handle, " cannot be built again"));
    component->set_compute(loaded.component->compute());
    RETURN_IF_ERROR(component->store().Share(loaded.component->store()));
    return component;
  }

 private:
  std::map<std::shared_ptr<const CheckpointFile>, models::Skeleton> by_file_;
};

// What becomes of one handle.
struct LoraApplier::Derived {
  Pin source;
  double strength = 1;
  std::string base_handle;
  lora::AdapterPlan plan;
  // What the new handle names. Where `fresh` is null it is there already: the adapter leaves the
  // source as it is, or another handle names the same stack.
  std::shared_ptr<const LoadedComponent> component;
  std::shared_ptr<LoadedComponent> fresh;  // its patches are still to come
};

LoraApplier::LoraApplier(const ModelFolders& folders, const DeviceManager& devices, Ledger* ledger,
                         Registry* registry, Streamer* streamer)
    : folders_(folders),
      devices_(devices),
      ledger_(ledger),
      registry_(registry),
      streamer_(streamer) {}

absl::StatusOr<LoraApplier::Adapter> LoraApplier::Open(const std::string& lora_name) const {
  if (folders_.roots().empty())
    return absl::NotFoundError("lora_name: the server has no folder of LoRA files (--lora_dirs)");
  auto path = folders_.Resolve(lora_name);
  if (!path.ok()) return Within("lora_name", path.status());
  Adapter adapter;
  adapter.name = lora_name;
  auto file = CheckpointFile::Open(*path);
  if (!file.ok()) return adapter.In(file.status());
  adapter.file = *std::move(file);
  auto modules = lora::ReadAdapterModules(adapter.file->index());
  if (!modules.ok()) return adapter.In(modules.status());
  adapter.modules = *std::move(modules);
  auto fingerprint = adapter.file->Fingerprint();
  if (!fingerprint.ok()) return adapter.In(fingerprint.status());
  adapter.fingerprint = *std::move(fingerprint);
  return adapter;
}

absl::StatusOr<LoraApplier::Derived> LoraApplier::Prepare(const Adapter& adapter, Pin source,
                                                          double strength,
                                                          Skeletons& skeletons) const {
  Derived derived{std::move(source), strength};
  const LoadedComponent& base = *derived.source;
  ASSIGN_OR_RETURN(
      derived.base_handle,
      ComponentHandle(base.kind, base.base_handle,
                      absl::StrFormat("lora %s %.17g", adapter.fingerprint, strength)));
  ASSIGN_OR_RETURN(std::unique_ptr<nn::Component> component, skeletons.BuildLike(base));
  auto plan = lora::PlanAdapter(*adapter.file, adapter.modules, component->store());
  if (!plan.ok()) {
    // Families share names, not widths.
    return adapter.In(
        absl::Status(plan.status().code(),
                     absl::StrCat(plan.status().message(),
                                  "; it may be made for another family than ", base.family)));
  }
  derived.plan = *std::move(plan);
  derived.component = derived.plan.patches.empty() || strength == 0
                          ? derived.source.component()
                          : registry_->FindComponent(derived.base_handle);
  if (derived.component != nullptr) return derived;

  derived.fresh = std::make_shared<LoadedComponent>();
  derived.component = derived.fresh;
  LoadedComponent& loaded = *derived.fresh;
  loaded.kind = base.kind;
  loaded.base_handle = derived.base_handle;
  loaded.ckpt_name = base.ckpt_name;
  loaded.family = base.family;
  loaded.recipe = base.recipe;
  loaded.file = base.file;
  loaded.base = derived.source.component();
  loaded.component = std::move(component);
  loaded.component->store().StreamTo(streamer_, loaded.component->compute().device);
  loaded.placement.component = base.placement.component;
  loaded.placement.compute_device = base.placement.compute_device;
  loaded.placement.allocation = base.placement.allocation;
  loaded.fields = base.fields;
  loaded.loras = base.loras;
  loaded.loras.push_back({adapter.name, strength});
  loaded.high_precision_loras = base.high_precision_loras;
  loaded.step = base.step;
  loaded.forecasts = base.forecasts;
  return derived;
}

absl::StatusOr<std::shared_ptr<const LoraApplier::HeldTensors>> LoraApplier::Tensors(
    const Adapter& adapter, const lora::AdapterPlan& plan, const LoadedComponent& loaded,
    const CancelToken& cancel) {
  const c10::Device compute = loaded.component->compute().device;
  const std::vector<DeviceId> devices = devices_.devices();
  const DeviceId& device = devices[DeviceIndex(compute, devices.size())];
  std::erase_if(held_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<const HeldTensors>& known = held_[absl::StrCat(
      adapter.fingerprint, "\n", ComponentKindName(loaded.kind), "\n", device.ToString())];
  // Another checkpoint of the family may lack some of what the adapter changes.
  if (auto held = known.lock(); held != nullptr && held->tensors.Has(plan)) return held;

  auto held = std::make_shared<HeldTensors>();
  const int64_t planned = lora::AdapterTensors::BytesOf(plan);
  ASSIGN_OR_RETURN(held->reservation,
                   ledger_->Reserve(absl::StrCat(adapter.name, " on ", loaded.ckpt_name, " (",
                                                 loaded.placement.component, ")"),
                                    {{device, planned}}, FreeBytes(devices_)));
  ASSIGN_OR_RETURN(held->tensors, lora::AdapterTensors::Read(*adapter.file, plan, compute, cancel));
  held->devices = {{device.ToString(), planned, held->tensors.bytes(), 0}};
  held->reservation.Commit({{device, held->tensors.bytes()}});
  known = held;
  return held;
}

absl::Status LoraApplier::Attach(const Adapter& adapter, Derived* derived,
                                 const CancelToken& cancel) {
  LoadedComponent& loaded = *derived->fresh;
  auto held = Tensors(adapter, derived->plan, loaded, cancel);
  if (!held.ok()) return adapter.In(held.status());
  lora::AttachOptions options;
  options.strength = derived->strength;
  options.round_to_fp8 = !loaded.high_precision_loras;
  lora::AttachAdapter(derived->plan, (*held)->tensors, options);
  loaded.holding = *std::move(held);
  return absl::OkStatus();
}

absl::StatusOr<std::string> LoraApplier::Publish(Derived derived,
                                                 const std::string& lora_name) const {
  // As SetClipSkip on the result would name it.
  std::string handle = derived.base_handle;
  const int stop_at_layer = derived.source.stop_at_layer();
  if (stop_at_layer != text::kFamilysLayer) {
    ASSIGN_OR_RETURN(handle, ClipSkipHandle(derived.base_handle, stop_at_layer));
  }
  RETURN_IF_ERROR(registry_->Derive(derived.source, handle, std::move(derived.component),
                                    stop_at_layer, {lora_name, derived.strength}));
  return handle;
}

absl::StatusOr<std::vector<LoraApplier::Derived>> LoraApplier::Fit(const Adapter& adapter,
                                                                   std::vector<Source> sources,
                                                                   const CancelToken& cancel,
                                                                   bool may_fit_nothing,
                                                                   ApplyLoraResult* result) {
  Skeletons skeletons;
  std::vector<Derived> all;
  for (auto& [pin, strength] : sources) {
    ASSIGN_OR_RETURN(Derived derived, Prepare(adapter, std::move(pin), strength, skeletons));
    result->patched += static_cast<int>(derived.plan.patches.size());
    all.push_back(std::move(derived));
  }
  const auto is_matched = [&](const TensorInfo& tensor) {
    for (const Derived& derived : all) {
      if (derived.plan.matched.contains(&tensor)) return true;
    }
    return false;
  };
  for (const TensorInfo& tensor : adapter.file->index().tensors()) {
    if (is_matched(tensor)) continue;
    ++result->unmatched_count;
    if (result->unmatched_keys.size() < kKeysReported)
      result->unmatched_keys.push_back(tensor.name);
  }
  if (result->patched == 0 && !may_fit_nothing) {
    return adapter.In(absl::InvalidArgumentError(absl::StrCat(
        "none of its ", result->unmatched_count, " tensors fits the given ", all[0].source->family,
        " ", all.size() == 2 ? "model and clip" : ComponentKindName(all[0].source->kind),
        "; it may be made for another family (the first is ", Quoted(result->unmatched_keys[0]),
        ")")));
  }
  for (Derived& derived : all) {
    if (derived.fresh != nullptr) RETURN_IF_ERROR(Attach(adapter, &derived, cancel));
  }
  RETURN_IF_ERROR(cancel.Check());
  return all;
}

absl::StatusOr<ApplyLoraResult> LoraApplier::Apply(const ApplyLoraSpec& spec,
                                                   const CancelTokenPtr& cancel,
                                                   bool may_fit_nothing) {
  RETURN_IF_ERROR(CheckStrength("strength_model", spec.strength_model));
  RETURN_IF_ERROR(CheckStrength("strength_clip", spec.strength_clip));
  if (spec.model.empty() && spec.clip.empty())
    return absl::InvalidArgumentError("model: give a model handle, a clip handle or both");
  RETURN_IF_ERROR(cancel->Check());
  std::vector<Source> sources;
  if (!spec.model.empty()) {
    ASSIGN_OR_RETURN(Pin pin,
                     registry_->Acquire("model", spec.model, ComponentKind::kModel, cancel));
    sources.emplace_back(std::move(pin), spec.strength_model);
  }
  if (!spec.clip.empty()) {
    ASSIGN_OR_RETURN(Pin pin, registry_->Acquire("clip", spec.clip, ComponentKind::kClip, cancel));
    sources.emplace_back(std::move(pin), spec.strength_clip);
  }
  ASSIGN_OR_RETURN(const Adapter adapter, Open(spec.lora_name));
  ApplyLoraResult result;
  ASSIGN_OR_RETURN(std::vector<Derived> all,
                   Fit(adapter, std::move(sources), *cancel, may_fit_nothing, &result));
  for (Derived& derived : all) {
    const bool is_model = derived.source->kind == ComponentKind::kModel;
    ASSIGN_OR_RETURN(std::string handle, Publish(std::move(derived), adapter.name));
    (is_model ? result.model : result.clip) = std::move(handle);
  }
  return result;
}

absl::Status LoraApplier::ApplyTo(Pin* model, Pin* clip, const InferLora& lora,
                                  const CancelToken& cancel) {
  RETURN_IF_ERROR(CheckStrength("strength_model", lora.strength_model));
  RETURN_IF_ERROR(CheckStrength("strength_clip", lora.strength_clip));
  ASSIGN_OR_RETURN(const Adapter adapter, Open(lora.name));
  std::vector<Source> sources;
  sources.emplace_back(std::move(*model), lora.strength_model);
  sources.emplace_back(std::move(*clip), lora.strength_clip);
  ApplyLoraResult ignored;
  ASSIGN_OR_RETURN(std::vector<Derived> all,
                   Fit(adapter, std::move(sources), cancel, /*may_fit_nothing=*/false, &ignored));
  for (const auto& [pin, derived] : {std::pair(model, &all[0]), std::pair(clip, &all[1])}) {
    *pin = std::move(derived->source);
    pin->Use(std::move(derived->component));
  }
  return absl::OkStatus();
}

}  // namespace distorch
