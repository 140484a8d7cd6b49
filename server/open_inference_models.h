// Checkpoints as the Open Inference Protocol's models: what is loaded of each, and how its requests
// went.
#ifndef SERVER_OPEN_INFERENCE_MODELS_H_
#define SERVER_OPEN_INFERENCE_MODELS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/serving/daemon_core.h"
#include "proto/open_inference.pb.h"
#include "server/open_inference_request.h"
#include "server/usable_handles.h"

namespace distorch {

inline constexpr std::string_view kModelVersion = "1";

// NOT_FOUND unless `version` is that or empty.
absl::Status CheckVersion(const std::string& version);

// A checkpoint of which something is loaded (or STORED, which is loaded when it is used), is being
// loaded or unloaded.
struct OpenModel {
  std::string family;
  std::string state;                     // RepositoryIndex's
  HandlesByKind ready;                   // UsableHandles
  std::vector<std::string> handles;      // all that can be unloaded
  std::map<std::string, int64_t> bytes;  // by device
};
std::map<std::string, OpenModel> OpenModelsOf(const std::vector<ModelInfo>& models);

// All that its folders have and all that is loaded, in the order of names.
void ToProto(const std::vector<CheckpointInfo>& checkpoints,
             const std::map<std::string, OpenModel>& models, bool ready_only,
             inference::RepositoryIndexResponse* out);

// Which handles a name means: what RepositoryModelLoad loaded last, where there are several.
// Thread-safe.
class OpenLoads {
 public:
  // What the name meant until now and means no longer.
  std::vector<std::string> Put(const std::string& name, const LoadResult& loaded,
                               std::map<std::string, std::string> fields)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);

  // FAILED_PRECONDITION when the model is not READY, lacks a component, or when there are several
  // and RepositoryModelLoad did not say which.
  absl::StatusOr<ModelHandles> Find(const std::string& name, const OpenModel& model) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The fields it was loaded with; empty where another protocol loaded it.
  std::map<std::string, std::string> Fields(const std::string& name) const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Loaded {
    ModelHandles handles;
    std::map<std::string, std::string> fields;
  };
  mutable absl::Mutex mutex_;
  std::map<std::string, Loaded> loaded_ ABSL_GUARDED_BY(mutex_);
};

// Counts and times of ModelInfer. Thread-safe.
class OpenStatistics {
 public:
  void Succeeded(const std::string& name, const std::vector<InferResult>& results, int64_t images,
                 absl::Duration time) ABSL_LOCKS_EXCLUDED(mutex_);
  void Failed(const std::string& name, absl::Duration time) ABSL_LOCKS_EXCLUDED(mutex_);

  bool Knows(const std::string& name) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Of `name`, or, when it is empty, of all that were asked for or are among `models`.
  void Read(const std::string& name, const std::map<std::string, OpenModel>& models,
            inference::ModelStatisticsResponse* out) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, inference::ModelStatistics> statistics_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace distorch

#endif  // SERVER_OPEN_INFERENCE_MODELS_H_
