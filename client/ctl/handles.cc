#include "client/ctl/handles.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

using Models = google::protobuf::RepeatedPtrField<v1::ModelInfo>;

// Of the models that `matches`, what `field` says of the READY ones; where there are none, of those
// that are STORED, which the request that uses them loads.
template <typename Field, typename Matches>
std::set<std::string> ReadyElseStored(const Models& models, Field field, Matches matches) {
  std::set<std::string> ready, stored;
  for (const v1::ModelInfo& model : models) {
    if (!matches(model)) continue;
    if (model.state() == "READY") ready.insert(field(model));
    if (model.state() == "STORED") stored.insert(field(model));
  }
  return ready.empty() ? stored : ready;
}

absl::StatusOr<std::string> ChooseCheckpoint(const Models& models, const HandleFlags& flags) {
  if (!flags.ckpt_name.empty()) return flags.ckpt_name;
  for (const v1::ModelInfo& model : models) {
    auto given = flags.handles.find(model.kind());
    if (given != flags.handles.end() && given->second == model.handle()) return model.ckpt_name();
  }
  const std::set<std::string> names = ReadyElseStored(
      models, [](const v1::ModelInfo& model) { return model.ckpt_name(); },
      [](const v1::ModelInfo&) { return true; });
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

absl::StatusOr<std::string> ChooseHandle(const Models& models, const std::string& ckpt_name,
                                         const std::string& kind) {
  const std::set<std::string> handles = ReadyElseStored(
      models, [](const v1::ModelInfo& model) { return model.handle(); },
      [&](const v1::ModelInfo& model) {
        return model.ckpt_name() == ckpt_name && model.kind() == kind;
      });
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
  ASSIGN_OR_RETURN(std::string ckpt_name, ChooseCheckpoint(loaded.models(), flags));
  for (auto& [kind, handle] : flags.handles) {
    if (!handle.empty()) continue;
    ASSIGN_OR_RETURN(handle, ChooseHandle(loaded.models(), ckpt_name, kind));
  }
  return absl::OkStatus();
}

absl::Status ResolveHandles(Session& session, HandleFlags& flags) {
  if (Complete(flags)) return absl::OkStatus();
  ASSIGN_OR_RETURN(v1::ListModelsResponse loaded, session.client().ListModels(session.call()));
  return FillHandles(loaded, flags);
}

}  // namespace distorch::ctl
