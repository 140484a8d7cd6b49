#include "server/image_service.h"

#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "server/call.h"
#include "server/recent_images.h"
#include "server/usable_handles.h"

namespace distorch {
namespace {

// How long a client that has left goes unnoticed.
constexpr absl::Duration kLook = absl::Milliseconds(100);

// Who draws with adapters must be allowed to apply them.
constexpr char kApplyLora[] = "/distorch.v1.ModelService/ApplyLora";

constexpr const char* kKinds[] = {"model", "clip", "vae"};

std::string Names(const std::set<std::string>& checkpoints) {
  return absl::StrJoin(checkpoints, ", ", [](std::string* out, const std::string& name) {
    absl::StrAppend(out, Quoted(name));
  });
}

// The handle of `kind` among those of the checkpoint `name`.
absl::StatusOr<std::string> OnlyHandle(const std::string& name, const HandlesByKind& handles,
                                       const std::string& kind) {
  const auto found = handles.find(kind);
  if (found == handles.end())
    return absl::NotFoundError(absl::StrCat(kind, ": ", Quoted(name), " has none"));
  if (found->second.size() == 1) return found->second.front();
  return absl::InvalidArgumentError(absl::StrCat(kind, ": ", Quoted(name), " has several (",
                                                 absl::StrJoin(found->second, ", "),
                                                 "): name one"));
}

CallOrigin OriginOf(const HttpRequest& request) {
  return {request.peer, std::string(request.header("authorization")),
          std::string(request.header("x-request-id")), std::string(request.header("traceparent"))};
}

// The name of the client's token; empty when there are no tokens.
std::string OwnerOf(const Access& access, const HttpRequest& request) {
  const absl::StatusOr<Principal> principal = access.Authenticate(request.header("authorization"));
  return principal.ok() ? principal->name : "";
}

}  // namespace

// Shared by the thread that answers and the core's callbacks.
struct ImageRun::State {
  State(ImageService* service, CallMonitor* monitor, const HttpRequest& request, const char* job)
      : service(service),
        call(monitor, OriginOf(request), "/distorch.v1.InferenceService/Infer"),
        owner(OwnerOf(monitor->access(), request)),
        job(job),
        gone(request.gone) {}

  // After the last of both who share it: the server waits for it.
  ~State() { call.End(); }

  bool HasNews() const ABSL_SHARED_LOCKS_REQUIRED(mutex) { return is_new || result.has_value(); }

  ImageService* const service;
  Call call;
  const std::string owner;
  const char* const job;
  const std::function<bool()> gone;
  const absl::Time start = absl::Now();

  mutable absl::Mutex mutex;
  StepProgress step ABSL_GUARDED_BY(mutex);
  std::string preview ABSL_GUARDED_BY(mutex);  // the latest
  bool is_new ABSL_GUARDED_BY(mutex) = false;  // not yet seen by NextStep
  bool interrupted ABSL_GUARDED_BY(mutex) = false;
  std::optional<absl::StatusOr<InferResult>> result ABSL_GUARDED_BY(mutex);
};

ImageRun::~ImageRun() {
  // Does nothing to a run that is over.
  state_->call.cancel()->Cancel(absl::CancelledError("the client went away"));
  state_->service->Forget(state_);
}

bool ImageRun::NextStep(StepProgress* progress) {
  while (true) {
    // Also where steps follow each other so fast that nothing is ever waited for.
    if (state_->gone()) state_->call.ClientGone();
    absl::MutexLock lock(&state_->mutex);
    if (state_->mutex.AwaitWithTimeout(absl::Condition(state_.get(), &State::HasNews), kLook)) {
      if (!state_->is_new) return false;
      state_->is_new = false;
      *progress = state_->step;
      return true;
    }
  }
}

absl::StatusOr<InferResult> ImageRun::Finish() {
  StepProgress ignored;
  while (NextStep(&ignored)) {
  }
  absl::MutexLock lock(&state_->mutex);
  return *std::move(state_->result);
}

bool ImageRun::interrupted() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->interrupted;
}

std::vector<LoadedCheckpoint> ImageService::Loaded() const {
  const std::vector<ModelInfo> models = core_->ListModels();
  std::map<std::string, std::string> families;
  for (const ModelInfo& model : models) families[model.ckpt_name] = model.family;
  std::vector<LoadedCheckpoint> loaded;
  for (const auto& [name, handles] : UsableHandles(models)) {
    if (handles.size() == std::size(kKinds)) loaded.push_back({name, families[name]});
  }
  return loaded;
}

absl::Status ImageService::ChooseHandles(const std::string& model, InferSpec* spec) const {
  const std::vector<ModelInfo> models = core_->ListModels();
  const std::set<std::string> checkpoints = UsableCheckpoints(models);
  std::string name = model;
  for (const ModelInfo& info : models) {
    if (info.kind != "model" || info.handle != model) continue;
    name = info.ckpt_name;
    spec->model = model;
  }
  if (name.empty()) {
    if (checkpoints.size() > 1) {
      return absl::InvalidArgumentError(absl::StrCat("model: several checkpoints are loaded (",
                                                     Names(checkpoints), "): name one"));
    }
    if (checkpoints.empty()) return absl::NotFoundError("model: no checkpoint is loaded");
    name = *checkpoints.begin();
  }
  const std::map<std::string, HandlesByKind> usable = UsableHandles(models);
  const auto found = usable.find(name);
  if (found == usable.end()) {
    return absl::NotFoundError(absl::StrCat("model: ", Quoted(name), " is not loaded; loaded: ",
                                            checkpoints.empty() ? "nothing" : Names(checkpoints)));
  }
  std::string* const chosen[] = {&spec->model, &spec->clip, &spec->vae};
  for (std::size_t i = 0; i < std::size(kKinds); ++i) {
    if (!chosen[i]->empty()) continue;
    ASSIGN_OR_RETURN(*chosen[i], OnlyHandle(name, found->second, kKinds[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ImageRun>> ImageService::Start(const HttpRequest& request,
                                                              const char* job, ImageRequest image) {
  auto state = std::make_shared<ImageRun::State>(this, monitor_, request, job);
  {
    absl::MutexLock lock(&mutex_);
    runs_.push_back(state);
  }
  std::unique_ptr<ImageRun> run(new ImageRun(state));
  absl::Status status = state->call.admission();
  if (status.ok()) {
    absl::MutexLock lock(&mutex_);
    if (runs_.size() > kMaxRuns) {
      status = absl::ResourceExhaustedError(
          absl::StrCat(kMaxRuns, " requests for pictures are under way over HTTP already"));
    }
  }
  if (status.ok() && !image.spec.loras.empty())
    status.Update(monitor_->access().Admit(request.header("authorization"), kApplyLora).status());
  if (status.ok()) status = ChooseHandles(image.model, &image.spec);
  if (!status.ok()) {
    state->call.Answer(status);
    return status;
  }
  InferCallbacks callbacks;
  callbacks.progress = [state](const StepProgress& progress) {
    absl::MutexLock lock(&state->mutex);
    std::string unseen = state->is_new ? std::move(state->step.preview_png) : "";
    state->step = progress;
    if (progress.preview_png.empty()) {
      state->step.preview_png = std::move(unseen);
    } else {
      state->preview = progress.preview_png;
    }
    state->is_new = true;
  };
  core_->Infer(image.spec, state->call.cancel(), std::move(callbacks),
               [state, recent = recent_](absl::StatusOr<InferResult> result) {
                 if (result.ok()) recent->Add(*result);
                 state->call.Answer(result.status());
                 absl::MutexLock lock(&state->mutex);
                 state->result = std::move(result);
               });
  return run;
}

std::optional<RunProgress> ImageService::Progress(const HttpRequest& request) const {
  const std::string owner = OwnerOf(monitor_->access(), request);
  absl::MutexLock lock(&mutex_);
  for (const auto& run : runs_) {
    if (run->owner != owner) continue;
    absl::MutexLock run_lock(&run->mutex);
    RunProgress progress{run->job, run->step, absl::Now() - run->start};
    progress.step.preview_png = run->preview;
    return progress;
  }
  return std::nullopt;
}

void ImageService::Interrupt(const HttpRequest& request) {
  const std::string owner = OwnerOf(monitor_->access(), request);
  absl::MutexLock lock(&mutex_);
  for (const auto& run : runs_) {
    if (run->owner != owner) continue;
    run->call.cancel()->Cancel(absl::CancelledError("interrupted"));
    absl::MutexLock run_lock(&run->mutex);
    run->interrupted = true;
  }
}

void ImageService::Forget(const std::shared_ptr<ImageRun::State>& run) {
  absl::MutexLock lock(&mutex_);
  runs_.remove(run);
}

}  // namespace distorch
