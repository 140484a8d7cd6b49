#include "lib/serving/restorer.h"

#include <map>
#include <memory>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace distorch {

absl::StatusOr<std::string> DeriveClipSkip(Registry* registry, const std::string& clip,
                                           int stop_at_layer) {
  const StoredStep step = {.lora_name = "", .stop_at_layer = stop_at_layer};
  std::vector<StoredHandle> stored = registry->StoredAmong({clip});
  if (!stored.empty() && stored[0].kind == ComponentKindName(ComponentKind::kClip)) {
    const std::vector<StoredStep>& steps = stored[0].steps;
    if (!steps.empty() && steps.back().stop_at_layer == stop_at_layer) return clip;
    ASSIGN_OR_RETURN(stored[0].handle, ClipSkipHandle(stored[0].base, stop_at_layer));
    AddStep(step, &stored[0]);
    registry->AddStored(stored[0]);
    return stored[0].handle;
  }
  ASSIGN_OR_RETURN(const Pin pin, registry->Acquire("clip", clip, ComponentKind::kClip,
                                                    std::make_shared<CancelToken>()));
  if (stop_at_layer == pin.stop_at_layer()) return clip;
  ASSIGN_OR_RETURN(const std::string alias, ClipSkipHandle(pin->base_handle, stop_at_layer));
  RETURN_IF_ERROR(registry->Derive(pin, alias, pin.component(), stop_at_layer, step));
  return alias;
}

absl::Status Restorer::Restore(const std::vector<StoredHandle>& stored,
                               const CancelTokenPtr& cancel, const Loader::Progress& progress) {
  std::map<std::string, std::vector<StoredHandle>> by_load;
  for (const StoredHandle& handle : stored) {
    if (registry_->FindReady(handle.handle) == nullptr)
      by_load[LoadToJson(handle.load)].push_back(handle);
  }
  std::set<std::string> known;
  for (const ModelInfo& model : registry_->List()) known.insert(model.handle);
  std::vector<std::string> made;
  const absl::Cleanup close_what_nobody_had = [&] {
    for (const std::string& handle : made) {
      if (!known.contains(handle)) registry_->Close({handle}, /*force=*/false).IgnoreError();
    }
  };
  for (const auto& [load, handles] : by_load) {
    for (const StoredHandle& handle : handles) made.push_back(handle.root);
    RETURN_IF_ERROR(loader_->LoadRoots(handles, cancel, progress));
    for (const StoredHandle& handle : handles) RETURN_IF_ERROR(Replay(handle, cancel, &made));
  }
  return absl::OkStatus();
}

absl::Status Restorer::Replay(const StoredHandle& stored, const CancelTokenPtr& cancel,
                              std::vector<std::string>* made) {
  const bool is_model = stored.kind == ComponentKindName(ComponentKind::kModel);
  std::string handle = stored.root;
  for (const StoredStep& step : stored.steps) {
    if (step.lora_name.empty()) {
      ASSIGN_OR_RETURN(handle, DeriveClipSkip(registry_, handle, step.stop_at_layer));
    } else {
      ApplyLoraSpec spec;
      (is_model ? spec.model : spec.clip) = handle;
      (is_model ? spec.strength_model : spec.strength_clip) = step.strength;
      spec.lora_name = step.lora_name;
      ASSIGN_OR_RETURN(const ApplyLoraResult applied,
                       lora_applier_->Apply(spec, cancel, /*may_fit_nothing=*/true));
      handle = is_model ? applied.model : applied.clip;
    }
    made->push_back(handle);
  }
  if (handle == stored.handle) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the adapters of \"", stored.handle,
                                                    "\" have changed since it was made; apply "
                                                    "them again"));
}

}  // namespace distorch
