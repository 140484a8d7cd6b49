#include "server/image_service.h"

#include <map>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "server/call.h"
#include "server/recent_images.h"

namespace distorch {
namespace {

// How long a client that has left goes unnoticed.
constexpr absl::Duration kLook = absl::Milliseconds(100);

constexpr const char* kKinds[] = {"model", "clip", "vae"};

// The handles of one checkpoint by kind.
struct Handles {
  std::string family;
  std::map<std::string, std::vector<std::string>> of;

  bool complete() const {
    return absl::c_all_of(kKinds, [this](const char* kind) { return of.contains(kind); });
  }
};

std::map<std::string, Handles> ByCheckpoint(const std::vector<ModelInfo>& models) {
  std::map<std::string, Handles> checkpoints;
  for (const ModelInfo& model : models) {
    if (model.state != "READY" && model.state != "STORED") continue;  // the latter load themselves
    Handles& handles = checkpoints[model.ckpt_name];
    handles.family = model.family;
    handles.of[model.kind].push_back(model.handle);
  }
  return checkpoints;
}

std::string Names(const std::map<std::string, Handles>& checkpoints) {
  return absl::StrJoin(checkpoints, ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, Quoted(entry.first));
  });
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
    {
      absl::MutexLock lock(&state_->mutex);
      if (state_->mutex.AwaitWithTimeout(absl::Condition(state_.get(), &State::HasNews), kLook)) {
        if (!state_->is_new) return false;
        state_->is_new = false;
        *progress = state_->step;
        return true;
      }
    }
    if (state_->gone()) state_->call.ClientGone();
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
  std::vector<LoadedCheckpoint> loaded;
  const std::map<std::string, Handles> checkpoints = ByCheckpoint(core_->ListModels());
  for (const auto& [name, handles] : checkpoints) {
    if (handles.complete()) loaded.push_back({name, handles.family});
  }
  return loaded;
}

absl::Status ImageService::ChooseHandles(const std::string& model, InferSpec* spec) const {
  const std::vector<ModelInfo> models = core_->ListModels();
  const std::map<std::string, Handles> checkpoints = ByCheckpoint(models);
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
    name = checkpoints.begin()->first;
  }
  const auto found = checkpoints.find(name);
  if (found == checkpoints.end()) {
    return absl::NotFoundError(absl::StrCat("model: ", Quoted(name), " is not loaded; loaded: ",
                                            checkpoints.empty() ? "nothing" : Names(checkpoints)));
  }
  const auto choose = [&](const std::string& kind, std::string* handle) -> absl::Status {
    if (!handle->empty()) return absl::OkStatus();
    const auto handles = found->second.of.find(kind);
    if (handles == found->second.of.end())
      return absl::NotFoundError(absl::StrCat(kind, ": ", Quoted(name), " has none"));
    if (handles->second.size() > 1) {
      return absl::InvalidArgumentError(absl::StrCat(kind, ": ", Quoted(name), " has several (",
                                                     absl::StrJoin(handles->second, ", "),
                                                     "): name one"));
    }
    *handle = handles->second.front();
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(choose("model", &spec->model));
  RETURN_IF_ERROR(choose("clip", &spec->clip));
  return choose("vae", &spec->vae);
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
