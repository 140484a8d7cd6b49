// What the image APIs over HTTP have in common: which checkpoint is meant, and pictures made in the
// core, in the queue and within the rights that gRPC's Infer has.
#ifndef SERVER_IMAGE_SERVICE_H_
#define SERVER_IMAGE_SERVICE_H_

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/serving/daemon_core.h"
#include "server/http/http_types.h"

namespace distorch {

class Access;
class CallMonitor;
class ImageService;
class RecentImages;

// A request as an API has read it.
struct ImageRequest {
  // A loaded checkpoint's name or a MODEL handle; empty: the only checkpoint that is loaded.
  std::string model;
  // Without a MODEL handle; those of CLIP and VAE may be empty, if the checkpoint has one of each.
  InferSpec spec;
};

// A picture being made. Belongs to the thread that answers the client; destroying it before the end
// cancels the work. Until then a server that drains waits for it.
class ImageRun {
 public:
  ~ImageRun();
  ImageRun(const ImageRun&) = delete;
  ImageRun& operator=(const ImageRun&) = delete;

  // Blocks until a further step is done (true; a slow reader misses some, the latest preview never)
  // or the run is over (false).
  // Cancels the run when the client goes away.
  bool NextStep(StepProgress* progress);
  // Blocks until the run is over. At most once.
  absl::StatusOr<InferResult> Finish();
  // Whether Interrupt ended it.
  bool interrupted() const;

 private:
  friend class ImageService;
  struct State;
  explicit ImageRun(std::shared_ptr<State> state) : state_(std::move(state)) {}

  const std::shared_ptr<State> state_;
};

struct RunProgress {
  std::string job;
  StepProgress step;  // with the latest preview
  absl::Duration elapsed;
};

struct LoadedCheckpoint {
  std::string name, family;
};

// Thread-safe; outlives its runs. What it is given must outlive it.
class ImageService {
 public:
  // Finished pictures are given to `recent`, too.
  ImageService(DaemonCore* core, CallMonitor* monitor, RecentImages* recent)
      : core_(core), monitor_(monitor), recent_(recent) {}
  ImageService(const ImageService&) = delete;
  ImageService& operator=(const ImageService&) = delete;

  // Checkpoints that have all a picture needs, by name.
  std::vector<LoadedCheckpoint> Loaded() const;

  // `job` is a literal, for RunProgress. INVALID_ARGUMENT when it is open which checkpoint is
  // meant; NOT_FOUND when it is not loaded; RESOURCE_EXHAUSTED when kMaxRuns are under way; what
  // gRPC's calls are refused with: with adapters in the spec, ApplyLora's, too.
  absl::StatusOr<std::unique_ptr<ImageRun>> Start(const HttpRequest& request, const char* job,
                                                  ImageRequest image) ABSL_LOCKS_EXCLUDED(mutex_);

  // Of the runs that were started with the same token (or, as this one, with none): the oldest.
  std::optional<RunProgress> Progress(const HttpRequest& request) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Cancels all of them.
  void Interrupt(const HttpRequest& request) ABSL_LOCKS_EXCLUDED(mutex_);

  static constexpr std::size_t kMaxRuns = 64;

 private:
  friend class ImageRun;
  absl::Status ChooseHandles(const std::string& model, InferSpec* spec) const;
  void Forget(const std::shared_ptr<ImageRun::State>& run) ABSL_LOCKS_EXCLUDED(mutex_);

  DaemonCore* const core_;
  CallMonitor* const monitor_;
  RecentImages* const recent_;
  mutable absl::Mutex mutex_;
  std::list<std::shared_ptr<ImageRun::State>> runs_ ABSL_GUARDED_BY(mutex_);  // oldest first
};

}  // namespace distorch

#endif  // SERVER_IMAGE_SERVICE_H_
