// The whole of distorchd but its wire: the registry of loaded checkpoints and the calls that
// compute on them. server/ translates protobuf to these plain types and back; in-process users
// (tests, benchmarks) call it directly.
//
// Threads: every method may be called from any thread. Those with a `done` callback return at once
// and call it exactly once, from one of the core's own threads (or from the caller's, for an error
// found at once); it must not block. The others may take milliseconds (they look at the disk) but
// never wait for a computation. Errors: INVALID_ARGUMENT names the field and what is allowed;
// NOT_FOUND for an unknown checkpoint (with near names) or a stale handle; RESOURCE_EXHAUSTED with
// who holds what, or for a full queue and a deadline that cannot be met, with when to try again
// (lib/base/retry_delay.h); FAILED_PRECONDITION for Unload of handles in use; CANCELLED,
// DEADLINE_EXCEEDED, ABORTED (unloaded by force) for work that was stopped. After any error nothing
// stays allocated.
#ifndef LIB_SERVING_DAEMON_CORE_H_
#define LIB_SERVING_DAEMON_CORE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/serving/infer_spec.h"
#include "lib/serving/load_spec.h"
#include "lib/serving/observer.h"

namespace distorch {

struct CoreOptions {
  std::vector<std::string> checkpoint_dirs, lora_dirs, embedding_dirs, vae_approx_dirs;
  std::string extra_model_paths;  // ComfyUI's YAML file; empty: none
  std::string simulate_devices;
  std::string compute_dtype = "auto";
  std::string links;                  // --link, as ParseLinks takes it: only for simulated devices
  std::string execution = "compute";  // of loads that ask for none
  std::string parallel = "off";       // what requests take whose options.parallel is empty
  int staging_mb = 512;  // for weights fetched ahead, on each device that computes; 0: none are
  int pinned_mb = 8192;  // of the donors' host memory, page-locked for CUDA devices
  int queue_limit = 64;  // requests waiting per device; more is RESOURCE_EXHAUSTED
  int max_queued_per_client = 0;  // of these and the running one, a client's; 0: no limit
  // Whether a load that does not fit, with what eject_models freed, evicts idle handles without a
  // lease, those used least recently first: "lru", or "never".
  std::string evict = "lru";
  std::string state_dir;  // where handles are kept for the next start; empty: nowhere
  // What becomes of handles of the last start: "lazy": what a request uses is loaded then, "eager":
  // all are loaded from the start on, "none": they are forgotten.
  std::string restore = "lazy";
  int threads = 0;  // intra-op threads of the CPU; 0: OMP_NUM_THREADS, or all cores
};

template <typename T>
using Done = absl::AnyInvocable<void(absl::StatusOr<T>)>;

// What the sampling calls tell while they run; called from a core thread, must not block.
struct InferCallbacks {
  std::function<void(std::string_view phase)>
      phase;  // "load" (of handles of the last start), "queue", "text", "sample", "decode"; may be
              // empty
  // While it waits for a device, whenever its position has changed; may be empty.
  std::function<void(const QueueProgress& progress)> queue;
  std::function<void(const StepProgress& progress)> progress;  // may be empty
};

class DaemonCore {
 public:
  // Discovers devices and checks every option. `observer` (may be null) must outlive the core.
  static absl::StatusOr<std::unique_ptr<DaemonCore>> Create(const CoreOptions& options,
                                                            Observer* observer);
  // Cancels what runs and joins its threads. Callbacks still pending are called (with CANCELLED)
  // before it returns.
  virtual ~DaemonCore() = default;

  virtual std::vector<DeviceInfo> ListDevices() = 0;
  virtual std::vector<CheckpointInfo> ListCheckpoints() = 0;  // rescans the folders
  virtual absl::StatusOr<CheckpointPlan> PlanCheckpoint(const LoadSpec& spec) = 0;
  // `progress` may be empty.
  virtual void LoadCheckpoint(const LoadSpec& spec, CancelTokenPtr cancel,
                              std::function<void(const LoadProgress&)> progress,
                              Done<LoadResult> done) = 0;
  // New handles beside the given ones, which stay valid: they share their weights, and hold the
  // adapter's tensors. Waits behind loads under way. INVALID_ARGUMENT also for a file that is no
  // adapter, that fits neither component, or has a tensor of a wrong shape.
  virtual void ApplyLora(const ApplyLoraSpec& spec, CancelTokenPtr cancel,
                         Done<ApplyLoraResult> done) = 0;
  virtual absl::StatusOr<std::string> SetClipSkip(const std::string& clip, int stop_at_layer) = 0;
  virtual std::vector<ModelInfo> ListModels() = 0;
  // Where the blocks of a READY handle's component lie, in its order; what adapters add is not
  // among them.
  virtual absl::StatusOr<std::vector<BlockPlacement>> Blocks(const std::string& handle) = 0;
  // With `force`, ends requests that use the handles with ABORTED and waits for them to notice
  // (within a step).
  virtual void Unload(const UnloadSpec& spec, Done<UnloadReceipt> done) = 0;
  virtual std::vector<LinkInfo> Links() = 0;

  virtual void EncodeText(const EncodeTextSpec& spec, CancelTokenPtr cancel,
                          Done<EncodeTextResult> done) = 0;
  virtual void Sample(const SampleSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
                      Done<HostTensor> done) = 0;
  virtual void Denoise(const DenoiseSpec& spec, CancelTokenPtr cancel, Done<HostTensor> done) = 0;
  virtual void DecodeLatent(const DecodeLatentSpec& spec, CancelTokenPtr cancel,
                            Done<DecodeLatentResult> done) = 0;
  virtual void EncodeImage(const EncodeImageSpec& spec, CancelTokenPtr cancel,
                           Done<HostTensor> done) = 0;
  // With adapters it waits behind loads under way, and fails as ApplyLora does.
  virtual void Infer(const InferSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
                     Done<InferResult> done) = 0;
};

// "2.11.0" and the CUDA version LibTorch was built with ("13.0", or "" without), for build_info.
std::string TorchVersion();
std::string CudaVersion();

}  // namespace distorch

#endif  // LIB_SERVING_DAEMON_CORE_H_
