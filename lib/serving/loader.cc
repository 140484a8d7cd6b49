#include "lib/serving/loader.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/sha256.h"
#include "lib/base/status_macros.h"
#include "lib/models/family.h"
#include "lib/serving/placement_check.h"

namespace distorch {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

absl::StatusOr<models::Skeleton> Detect(const std::string& ckpt_name, const CheckpointFile& file) {
  auto skeleton = models::BuildSkeleton(file);
  if (!skeleton.ok()) return InCheckpoint(ckpt_name, skeleton.status());
  return skeleton;
}

// What is read to load it.
int64_t FileBytes(const ComponentLoadPlan& component) {
  int64_t bytes = 0;
  for (const SlotTarget& target : component.targets) {
    if (!target.device.is_meta()) bytes += target.slot->file_bytes();
  }
  return bytes;
}

// Whether it has positions in `devices`, and no others.
bool IsOf(const DecidedSplit& split, const std::vector<DeviceId>& devices) {
  const auto same = [](const std::string& name, const DeviceId& id) {
    return name == id.ToString();
  };
  const auto known = [&](int device) {
    return device >= 0 && static_cast<size_t>(device) < devices.size();
  };
  return std::equal(split.devices.begin(), split.devices.end(), devices.begin(), devices.end(),
                    same) &&
         std::all_of(split.assignment.begin(), split.assignment.end(), known) &&
         std::all_of(split.unit_devices.begin(), split.unit_devices.end(), known);
}

StoredHandle RecipeOf(const LoadPlan& plan, const ComponentLoadPlan& component,
                      const std::string& root, const std::vector<DeviceId>& devices) {
  StoredHandle recipe;
  recipe.kind = ComponentKindName(component.kind);
  recipe.family = plan.family;
  recipe.load = plan.spec;
  recipe.fingerprint = plan.fingerprint;
  recipe.root = root;
  recipe.request = component.request;
  for (const DeviceId& device : devices) recipe.split.devices.push_back(device.ToString());
  recipe.split.assignment = component.step.assignment;
  recipe.split.unit_devices = component.step.unit_devices;
  return recipe;
}

// Leaves of a load only the components that `stored` come from.
absl::Status KeepRoots(const std::vector<StoredHandle>& stored, LoadPlan* plan,
                       std::vector<std::string>* handles) {
  std::set<std::string> roots;
  for (const StoredHandle& handle : stored) {
    if (std::find(handles->begin(), handles->end(), handle.root) == handles->end()) {
      return InCheckpoint(plan->ckpt_name,
                          absl::FailedPreconditionError(
                              absl::StrCat("the server's devices or settings have changed since \"",
                                           handle.handle, "\" was loaded; load it again")));
    }
    roots.insert(handle.root);
  }
  for (size_t i = handles->size(); i-- > 0;) {
    if (roots.contains((*handles)[i])) continue;
    handles->erase(handles->begin() + static_cast<std::ptrdiff_t>(i));
    plan->components.erase(plan->components.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return absl::OkStatus();
}

DenoiserInfo InfoOf(const models::DiffusionModel& model) {
  const models::LatentFormat& format = model.latent_format();
  return {.flow = model.sampling().is_flow(),
          .sigma_min = model.sampling().sigma_min(),
          .sigma_max = model.sampling().sigma_max(),
          .latent_channels = format.channels,
          .latent_scale = format.scale,
          .latent_mean = format.mean,
          .latent_deviation = format.deviation,
          .concat_channels = model.concat_channels(),
          .concat_in_model_space = model.edits_in_model_space()};
}

}  // namespace

// Times the phases of one load and tells them on.
class Loader::PhaseTimer {
 public:
  PhaseTimer(Observer* observer, const Progress& progress)
      : observer_(observer), progress_(progress) {}

  // Ends the phase before, if any.
  void Begin(const std::string& phase) {
    End();
    phase_ = phase;
    start_ = std::chrono::steady_clock::now();
    if (progress_) progress_({phase, 0, 0});
  }
  void End() {
    if (phase_.empty()) return;
    seconds_[phase_] += SecondsSince(start_);
    phase_.clear();
  }
  // Only finished loads are observed: the family is known then.
  void Observe(const std::string& family) {
    for (const auto& [phase, seconds] : seconds_)
      observer_->PhaseDone(absl::StrCat("load_", phase), family, seconds);
  }
  const std::map<std::string, double>& seconds() const { return seconds_; }

 private:
  Observer* observer_;
  const Progress& progress_;
  std::string phase_;
  std::chrono::steady_clock::time_point start_;
  std::map<std::string, double> seconds_;
};

absl::StatusOr<std::string> ComponentHandle(ComponentKind kind, std::string_view fingerprint,
                                            std::string_view identity) {
  constexpr size_t kDigits = 16;
  Sha256 hash;
  hash.Update(absl::StrCat(ComponentKindName(kind), "\n", fingerprint, "\n", identity));
  ASSIGN_OR_RETURN(const std::string digest, hash.HexDigest());
  return absl::StrCat(ComponentKindName(kind), "-", digest.substr(0, kDigits));
}

absl::StatusOr<std::string> ClipSkipHandle(std::string_view base_handle, int stop_at_layer) {
  return ComponentHandle(ComponentKind::kClip, base_handle,
                         absl::StrCat("stop_at_layer ", stop_at_layer));
}

Loader::Loader(const ModelFolders& folders, const DeviceManager& devices, Ledger* ledger,
               Registry* registry, TransferMeter* meter, Streamer* streamer, Observer* observer,
               StepForecasts* forecasts, const RoomMaker* room_maker, Execution execution)
    : folders_(folders),
      devices_(devices),
      ledger_(ledger),
      registry_(registry),
      meter_(meter),
      streamer_(streamer),
      observer_(observer),
      forecasts_(forecasts),
      room_maker_(room_maker),
      execution_(execution) {}

std::vector<CheckpointInfo> Loader::ListCheckpoints() const {
  std::vector<CheckpointInfo> checkpoints;
  for (const std::string& name : folders_.List()) {
    CheckpointInfo info;
    info.ckpt_name = name;
    // The errors go beside the name: they need not say it again.
    const absl::Status status = [&]() -> absl::Status {
      ASSIGN_OR_RETURN(const std::string path, folders_.Resolve(name));
      ASSIGN_OR_RETURN(const auto file, CheckpointFile::Open(path));
      info.bytes = static_cast<int64_t>(file->size());
      info.format = file->format();
      ASSIGN_OR_RETURN(const models::Skeleton skeleton, models::BuildSkeleton(*file));
      info.family = skeleton.family->name;
      return absl::OkStatus();
    }();
    info.error = status.message();
    checkpoints.push_back(std::move(info));
  }
  return checkpoints;
}

SplitContext Loader::ContextOf(const LoadSpec& spec, std::vector<StoredHandle> stored) const {
  SplitContext context{.devices = devices_, .forecasts = forecasts_, .execution = execution_};
  context.free = FreeBytes(devices_);
  const auto add = [&context](const BytesByDevice& freed) {
    for (const auto& [device, bytes] : freed) context.free[device] += bytes;
  };
  add(streamer_->RingBytes());  // they give way
  if (spec.eject_models.value_or(true)) add(registry_->IdleBytes({}));
  context.find_decided = [this, ckpt_name = spec.ckpt_name, stored = std::move(stored)](
                             const std::string& request) -> std::optional<DecidedSplit> {
    if (const auto loaded = registry_->FindRequested(ckpt_name, request))
      return loaded->recipe.split;
    for (const StoredHandle& handle : stored) {
      if (handle.request == request && IsOf(handle.split, forecasts_->devices()))
        return handle.split;
    }
    return std::nullopt;
  };
  return context;
}

absl::StatusOr<CheckpointPlan> Loader::Plan(const LoadSpec& spec) const {
  ASSIGN_OR_RETURN(auto file, OpenCheckpoint(folders_, spec.ckpt_name));
  ASSIGN_OR_RETURN(models::Skeleton skeleton, Detect(spec.ckpt_name, *file));
  ASSIGN_OR_RETURN(LoadPlan plan,
                   MakeLoadPlan(spec, std::move(file), std::move(skeleton), ContextOf(spec)));

  BytesByDevice need = plan.need();
  const auto makes_room = [&need](const BytesByDevice& freed) {
    for (const auto& [device, bytes] : freed) {
      if (auto found = need.find(device); found != need.end())
        found->second = std::max<int64_t>(0, found->second - bytes);
    }
  };
  makes_room(streamer_->RingBytes());
  if (spec.eject_models.value_or(true)) {
    makes_room(registry_->IdleBytes({}));
  } else if (room_maker_->evicts()) {
    makes_room(registry_->IdleBytes({}, /*evictable_only=*/true));
  }
  const absl::Status fits = ledger_->Check(need, FreeBytes(devices_));
  CheckpointPlan result;
  result.family = plan.family;
  result.fits = fits.ok();
  result.reason = fits.message();
  for (ComponentLoadPlan& component : plan.components) {
    result.predicted_step_seconds += component.predicted_step_seconds;
    result.placement.push_back(std::move(component.placement));
  }
  return result;
}

absl::StatusOr<LoadResult> Loader::Load(const LoadSpec& spec, const CancelTokenPtr& cancel,
                                        const Progress& progress) {
  return LoadFile(spec, {}, cancel, progress);
}

absl::Status Loader::LoadRoots(const std::vector<StoredHandle>& stored,
                               const CancelTokenPtr& cancel, const Progress& progress) {
  LoadSpec spec = stored.front().load;
  spec.eject_models = false;
  return LoadFile(spec, stored, cancel, progress).status();
}

absl::StatusOr<LoadResult> Loader::LoadFile(const LoadSpec& spec,
                                            const std::vector<StoredHandle>& stored,
                                            const CancelTokenPtr& cancel,
                                            const Progress& progress) {
  PhaseTimer timer(observer_, progress);
  RETURN_IF_ERROR(cancel->Check());
  timer.Begin("open");
  ASSIGN_OR_RETURN(auto file, OpenCheckpoint(folders_, spec.ckpt_name));
  const absl::StatusOr<std::string> fingerprint = file->Fingerprint();
  if (!fingerprint.ok()) return InCheckpoint(spec.ckpt_name, fingerprint.status());
  for (const StoredHandle& handle : stored) {
    if (handle.fingerprint != *fingerprint) {
      return InCheckpoint(spec.ckpt_name, absl::FailedPreconditionError(absl::StrCat(
                                              "the file has changed since \"", handle.handle,
                                              "\" was loaded from it; load it again")));
    }
  }
  timer.Begin("detect");
  ASSIGN_OR_RETURN(models::Skeleton skeleton, Detect(spec.ckpt_name, *file));
  timer.Begin("plan");
  ASSIGN_OR_RETURN(LoadPlan plan, MakeLoadPlan(spec, std::move(file), std::move(skeleton),
                                               ContextOf(spec, stored)));
  plan.fingerprint = *fingerprint;
  RETURN_IF_ERROR(cancel->Check());

  LoadResult result;
  result.family = plan.family;
  std::vector<std::string> handles;
  for (const ComponentLoadPlan& component : plan.components) {
    ASSIGN_OR_RETURN(std::string handle,
                     ComponentHandle(component.kind, *fingerprint, component.identity));
    handles.push_back(std::move(handle));
    std::string* const by_kind[] = {&result.model, &result.clip, &result.vae};
    *by_kind[static_cast<size_t>(component.kind)] = handles.back();
  }
  if (!stored.empty()) RETURN_IF_ERROR(KeepRoots(stored, &plan, &handles));
  timer.Begin("reserve");
  for (const std::string& handle : handles) registry_->EvictDamaged(handle);
  // Before adapters' handles are evicted, which may be all that keeps them.
  Components living;
  for (const std::string& handle : handles) living.push_back(registry_->FindComponent(handle));
  if (spec.eject_models.value_or(true)) registry_->EvictIdle({handles.begin(), handles.end()});
  RETURN_IF_ERROR(LoadMissing(std::move(plan), handles, living, cancel, progress, timer));
  timer.End();

  const int64_t lease = spec.lease_seconds.value_or(0);
  for (const std::string& handle : handles) {
    registry_->SetLease(handle, lease > 0 ? absl::Seconds(lease) : absl::InfiniteDuration());
    const auto component = registry_->FindReady(handle);
    if (component == nullptr)
      return absl::AbortedError(absl::StrCat("\"", handle, "\" was unloaded while it was loading"));
    result.placement.push_back(component->placement);
    result.predicted_step_seconds += component->predicted_step_seconds;
    if (component->kind == ComponentKind::kModel) result.denoiser = InfoOf(component->model());
  }
  timer.Observe(result.family);
  result.phase_seconds = timer.seconds();
  return result;
}

absl::Status Loader::LoadMissing(LoadPlan plan, const std::vector<std::string>& handles,
                                 const Components& living, const CancelTokenPtr& cancel,
                                 const Progress& progress, PhaseTimer& timer) {
  // Equal loads are one: components that are there already stay as they are.
  std::vector<size_t> missing;
  BytesByDevice need;
  int64_t total = 0;
  for (size_t i = 0; i < handles.size(); ++i) {
    if (registry_->FindReady(handles[i]) != nullptr) continue;
    missing.push_back(i);
    if (living[i] != nullptr) continue;
    total += FileBytes(plan.components[i]);
    for (const auto& [device, bytes] : plan.components[i].need) need[device] += bytes;
  }
  const absl::Cleanup fit_rings = [this] { streamer_->FitRings(FreeBytes(devices_)); };
  RETURN_IF_ERROR(room_maker_->MakeRoom(need, {handles.begin(), handles.end()}));

  for (size_t i : missing)
    registry_->BeginLoading(handles[i], plan.components[i].kind, plan.ckpt_name, plan.family,
                            cancel);
  Components placed;
  absl::Cleanup abandon = [&] {
    placed.clear();  // frees the weights before the handles go
    for (size_t i : missing) registry_->Abandon(handles[i]);
  };

  timer.Begin("weights");
  int64_t before = 0;
  for (size_t i : missing) {
    if (living[i] != nullptr) {
      placed.push_back(living[i]);
      continue;
    }
    const int64_t bytes = FileBytes(plan.components[i]);
    const auto on_bytes = [&](int64_t done) {
      if (progress) progress({"weights", before + done, total});
    };
    ASSIGN_OR_RETURN(auto component,
                     Place(plan, std::move(plan.components[i]), handles[i], *cancel, on_bytes));
    placed.push_back(std::move(component));
    before += bytes;
  }
  RETURN_IF_ERROR(cancel->Check());
  std::move(abandon).Cancel();
  for (auto& component : placed) registry_->Publish(std::move(component));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<LoadedComponent>> Loader::Place(
    const LoadPlan& plan, ComponentLoadPlan component, const std::string& handle,
    const CancelToken& cancel, const std::function<void(int64_t)>& on_bytes) {
  auto loaded = std::make_shared<LoadedComponent>();
  loaded->kind = component.kind;
  loaded->base_handle = handle;
  loaded->ckpt_name = plan.ckpt_name;
  loaded->family = plan.family;
  loaded->recipe = RecipeOf(plan, component, handle, forecasts_->devices());
  loaded->file = plan.file;
  loaded->placement = std::move(component.placement);
  loaded->blocks = std::exchange(loaded->placement.blocks, {});
  loaded->fields = std::move(component.fields);
  loaded->high_precision_loras = plan.high_precision_loras;
  loaded->request = std::move(component.request);
  loaded->step = std::move(component.step);
  loaded->forecasts = forecasts_;
  loaded->predicted_step_seconds = component.predicted_step_seconds;
  loaded->component = std::move(component.component);
  auto holding = std::make_shared<Holding>();
  ASSIGN_OR_RETURN(
      holding->reservation,
      ledger_->Reserve(absl::StrCat(plan.ckpt_name, " (", loaded->placement.component, ")"),
                       component.need, FreeBytes(devices_)));
  RETURN_IF_ERROR(PlaceWeights(*plan.file, component.targets, meter_, cancel, on_bytes));
  if (!component.unit_devices.empty())
    loaded->component->store().PlaceUnits(component.unit_devices, meter_);

  const BytesByDevice measured = loaded->component->store().StoredBytes(devices_.devices());
  const double error = MeasurePlacement(measured, &loaded->placement);
  observer_->PlanError(plan.family, error);
  RETURN_IF_ERROR(CheckPlanError(error, loaded->placement));
  BytesByDevice held = measured;
  held.erase(kDisk);
  holding->reservation.Commit(held);
  holding->devices = loaded->placement.devices;
  loaded->holding = std::move(holding);
  loaded->component->store().StreamTo(streamer_, loaded->component->compute().device);
  return loaded;
}

}  // namespace distorch
