#include "client/ctl/handles.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

using Models = std::vector<const v1::ModelInfo*>;

absl::StatusOr<std::string> ChooseCheckpoint(const Models& ready, const HandleFlags& flags) {
  if (!flags.ckpt_name.empty()) return flags.ckpt_name;
  std::set<std::string> names;
  for (const v1::ModelInfo* model : ready) {
    auto given = flags.handles.find(model->kind());
    if (given != flags.handles.end() && given->second == model->handle()) return model->ckpt_name();
    names.insert(model->ckpt_name());
  }
  if (names.empty()) {
    return absl::FailedPreconditionError(
        "no checkpoint is loaded; load one with 'distorchctl load CKPT_NAME'");
  }
  if (names.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("several checkpoints are loaded (",
                                                   absl::StrJoin(names, ", "),
                                                   "): choose one with --ckpt_name"));
  }
  return *names.begin();
}

absl::StatusOr<std::string> ChooseHandle(const Models& ready, const std::string& ckpt_name,
                                         const std::string& kind) {
  std::set<std::string> handles;
  for (const v1::ModelInfo* model : ready) {
    if (model->ckpt_name() == ckpt_name && model->kind() == kind) handles.insert(model->handle());
  }
  if (handles.empty()) {
    return absl::NotFoundError(absl::StrCat("no ", kind, " of '", ckpt_name,
                                            "' is loaded; 'distorchctl models' lists what is"));
  }
  if (handles.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("'", ckpt_name, "' has several ", kind,
                                                   " handles (", absl::StrJoin(handles, ", "),
                                                   "): choose one with --", kind));
  }
  return *handles.begin();
}

bool Complete(const HandleFlags& flags) {
  return std::none_of(flags.handles.begin(), flags.handles.end(),
                      [](const auto& entry) { return entry.second.empty(); });
}

}  // namespace

void AddHandleFlags(CLI::App& app, const std::vector<std::string>& kinds, HandleFlags& flags) {
  for (const std::string& kind : kinds) {
    std::string& handle = flags.handles[kind];
    app.add_option("--" + kind, handle,
                   absl::StrCat("The ", absl::AsciiStrToUpper(kind),
                                " handle to use (default: that of the chosen checkpoint)"))
        ->type_name("HANDLE");
  }
  app.add_option("--ckpt_name", flags.ckpt_name,
                 "Use the handles of this loaded checkpoint (default: the only one that is loaded)")
      ->type_name("NAME");
}

absl::Status FillHandles(const v1::ListModelsResponse& loaded, HandleFlags& flags) {
  Models ready;
  for (const v1::ModelInfo& model : loaded.models()) {
    // The latter are loaded by the request that uses them.
    if (model.state() == "READY" || model.state() == "STORED") ready.push_back(&model);
  }
  ASSIGN_OR_RETURN(std::string ckpt_name, ChooseCheckpoint(ready, flags));
  for (auto& [kind, handle] : flags.handles) {
    if (!handle.empty()) continue;
    ASSIGN_OR_RETURN(handle, ChooseHandle(ready, ckpt_name, kind));
  }
  return absl::OkStatus();
}

absl::Status ResolveHandles(Session& session, HandleFlags& flags) {
  if (Complete(flags)) return absl::OkStatus();
  ASSIGN_OR_RETURN(v1::ListModelsResponse loaded, session.client().ListModels(session.call()));
  return FillHandles(loaded, flags);
}

}  // namespace distorch::ctl
