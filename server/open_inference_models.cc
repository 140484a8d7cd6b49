#include "server/open_inference_models.h"

#include <array>
#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "server/status.h"

namespace distorch {
namespace {

using inference::InferStatistics;
using inference::StatisticDuration;

// The wire's times, each the sum of some of InferResult's phases.
struct PhaseGroup {
  StatisticDuration* (InferStatistics::*time)();
  std::vector<std::string_view> phases;
};
const std::array<PhaseGroup, 4>& PhaseGroups() {
  static const auto* const groups = new std::array<PhaseGroup, 4>{{
      {&InferStatistics::mutable_queue, {"queue"}},
      {&InferStatistics::mutable_compute_input, {"text", "encode"}},
      {&InferStatistics::mutable_compute_infer, {"sample"}},
      {&InferStatistics::mutable_compute_output, {"decode", "png"}},
  }};
  return *groups;
}

void Add(uint64_t count, absl::Duration time, StatisticDuration* out) {
  out->set_count(out->count() + count);
  out->set_ns(out->ns() + static_cast<uint64_t>(absl::ToInt64Nanoseconds(time)));
}

void AddMemory(const OpenModel& model, inference::ModelStatistics* out) {
  for (const auto& [device, bytes] : model.bytes) {
    inference::MemoryUsage* usage = out->add_memory_usage();
    const std::size_t colon = device.find(':');
    int64_t id = 0;
    if (colon != std::string::npos && absl::SimpleAtoi(device.substr(colon + 1), &id))
      usage->set_id(id);
    usage->set_type(absl::StartsWith(device, "cpu") ? "CPU" : "GPU");
    usage->set_byte_size(static_cast<uint64_t>(bytes));
  }
}

absl::StatusOr<std::string> FindHandle(const std::string& name, const OpenModel& model,
                                       const std::string& kind, const std::string& loaded) {
  const auto it = model.ready.find(kind);
  if (it == model.ready.end())
    return absl::FailedPreconditionError(
        absl::StrCat("model ", Quoted(name), " has no ", kind, " that is loaded"));
  const std::vector<std::string>& handles = it->second;
  if (absl::c_linear_search(handles, loaded)) return loaded;
  if (handles.size() == 1) return handles.front();
  return absl::FailedPreconditionError(
      absl::StrCat("model ", Quoted(name), " is loaded with ", handles.size(), " handles for its ",
                   kind, ": RepositoryModelLoad says which one the name means"));
}

}  // namespace

absl::Status CheckVersion(const std::string& version) {
  if (version.empty() || version == kModelVersion) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("version ", Quoted(version), " is not ", kModelVersion, ", the only one"));
}

std::map<std::string, OpenModel> OpenModelsOf(const std::vector<ModelInfo>& models) {
  std::map<std::string, OpenModel> out;
  for (const ModelInfo& info : models) {
    OpenModel& model = out[info.ckpt_name];
    if (!info.family.empty()) model.family = info.family;
    if (info.state == "READY" || info.state == "STORED") {
      model.handles.push_back(info.handle);
    } else {
      model.state = info.state;
    }
    for (const auto& [device, bytes] : info.unshared_bytes) model.bytes[device] += bytes;
  }
  for (auto& [name, handles] : UsableHandles(models)) out[name].ready = handles;
  for (auto& [name, model] : out) {
    if (model.ready.contains("model")) model.state = "READY";
    if (model.state.empty()) model.state = "UNAVAILABLE";
  }
  return out;
}

void ToProto(const std::vector<CheckpointInfo>& checkpoints,
             const std::map<std::string, OpenModel>& models, bool ready_only,
             inference::RepositoryIndexResponse* out) {
  std::map<std::string, std::string> reasons;  // by name, why one is unavailable
  for (const CheckpointInfo& info : checkpoints)
    reasons[info.ckpt_name] = info.error.empty() ? "not loaded" : info.error;
  for (const auto& [name, model] : models)
    reasons[name] = model.state == "UNAVAILABLE" ? "its model handle is not loaded" : "";
  for (const auto& [name, reason] : reasons) {
    const auto model = models.find(name);
    const std::string state = model == models.end() ? "UNAVAILABLE" : model->second.state;
    if (ready_only && state != "READY") continue;
    auto* index = out->add_models();
    index->set_name(CleanUtf8(name));
    index->set_version(std::string(kModelVersion));
    index->set_state(state);
    index->set_reason(CleanUtf8(reason));
  }
}

std::vector<std::string> OpenLoads::Put(const std::string& name, const LoadResult& loaded,
                                        std::map<std::string, std::string> fields) {
  absl::MutexLock lock(&mutex_);
  Loaded& entry = loaded_[name];
  const ModelHandles old = std::exchange(entry.handles, {loaded.model, loaded.clip, loaded.vae});
  entry.fields = std::move(fields);
  std::vector<std::string> replaced;
  for (const auto handle : {&ModelHandles::model, &ModelHandles::clip, &ModelHandles::vae}) {
    if (!(old.*handle).empty() && old.*handle != entry.handles.*handle)
      replaced.push_back(old.*handle);
  }
  return replaced;
}

void OpenLoads::Remove(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  loaded_.erase(name);
}

absl::StatusOr<ModelHandles> OpenLoads::Find(const std::string& name,
                                             const OpenModel& model) const {
  ModelHandles loaded, out;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = loaded_.find(name);
    if (it != loaded_.end()) loaded = it->second.handles;
  }
  ASSIGN_OR_RETURN(out.model, FindHandle(name, model, "model", loaded.model));
  ASSIGN_OR_RETURN(out.clip, FindHandle(name, model, "clip", loaded.clip));
  ASSIGN_OR_RETURN(out.vae, FindHandle(name, model, "vae", loaded.vae));
  return out;
}

std::map<std::string, std::string> OpenLoads::Fields(const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  const auto it = loaded_.find(name);
  return it == loaded_.end() ? std::map<std::string, std::string>() : it->second.fields;
}

void OpenStatistics::Succeeded(const std::string& name, const std::vector<InferResult>& results,
                               int64_t images, absl::Duration time) {
  absl::MutexLock lock(&mutex_);
  inference::ModelStatistics& model = statistics_[name];
  model.set_last_inference(static_cast<uint64_t>(absl::ToUnixMillis(absl::Now())));
  model.set_inference_count(model.inference_count() + static_cast<uint64_t>(images));
  model.set_execution_count(model.execution_count() + results.size());
  InferStatistics* statistics = model.mutable_inference_stats();
  Add(1, time, statistics->mutable_success());
  for (const PhaseGroup& group : PhaseGroups()) {
    double seconds = 0;
    for (const InferResult& result : results) {
      for (const auto& [phase, taken] : result.phase_seconds)
        seconds += absl::c_linear_search(group.phases, phase) ? taken : 0;
    }
    Add(1, absl::Seconds(seconds), (statistics->*group.time)());
  }
}

void OpenStatistics::Failed(const std::string& name, absl::Duration time) {
  absl::MutexLock lock(&mutex_);
  Add(1, time, statistics_[name].mutable_inference_stats()->mutable_fail());
}

bool OpenStatistics::Knows(const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  return statistics_.contains(name);
}

void OpenStatistics::Read(const std::string& name, const std::map<std::string, OpenModel>& models,
                          inference::ModelStatisticsResponse* out) const {
  absl::MutexLock lock(&mutex_);
  std::set<std::string> names = {name};
  if (name.empty()) {
    names.clear();
    for (const auto& [asked, unused] : statistics_) names.insert(asked);
    for (const auto& [loaded, unused] : models) names.insert(loaded);
  }
  for (const std::string& one : names) {
    inference::ModelStatistics* statistics = out->add_model_stats();
    const auto counted = statistics_.find(one);
    if (counted != statistics_.end()) *statistics = counted->second;
    statistics->set_name(CleanUtf8(one));
    statistics->set_version(std::string(kModelVersion));
    statistics->mutable_inference_stats();
    const auto model = models.find(one);
    if (model != models.end()) AddMemory(model->second, statistics);
  }
}

}  // namespace distorch
