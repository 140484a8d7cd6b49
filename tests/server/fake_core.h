// A scripted DaemonCore: each test says what the calls it makes are answered with.
#ifndef TESTS_SERVER_FAKE_CORE_H_
#define TESTS_SERVER_FAKE_CORE_H_

#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "lib/serving/daemon_core.h"

namespace distorch {

// The hooks are called on the server's threads. Those with a `done` may keep it and call it from a
// thread of Spawn.
class FakeCore : public DaemonCore {
 public:
  std::vector<DeviceInfo> devices;
  std::vector<CheckpointInfo> checkpoints;
  std::vector<ModelInfo> models;
  std::vector<LinkInfo> links;
  std::map<std::string, std::vector<BlockPlacement>> blocks;  // by handle
  std::function<absl::StatusOr<CheckpointPlan>(const LoadSpec&)> plan;
  std::function<void(const LoadSpec&, CancelTokenPtr, std::function<void(const LoadProgress&)>,
                     Done<LoadResult>)>
      load;
  std::function<void(const ApplyLoraSpec&, CancelTokenPtr, Done<ApplyLoraResult>)> apply_lora;
  std::function<absl::StatusOr<std::string>(const std::string&, int)> clip_skip;
  std::function<void(const UnloadSpec&, Done<UnloadReceipt>)> unload;
  std::function<void(const EncodeTextSpec&, CancelTokenPtr, Done<EncodeTextResult>)> encode_text;
  std::function<void(const SampleSpec&, CancelTokenPtr, InferCallbacks, Done<HostTensor>)> sample;
  std::function<void(const DenoiseSpec&, CancelTokenPtr, Done<HostTensor>)> denoise;
  std::function<void(const DecodeLatentSpec&, CancelTokenPtr, Done<DecodeLatentResult>)> decode;
  std::function<void(const EncodeImageSpec&, CancelTokenPtr, Done<HostTensor>)> encode_image;
  std::function<void(const InferSpec&, CancelTokenPtr, InferCallbacks, Done<InferResult>)> infer;

  ~FakeCore() override { Join(); }

  // Runs `work` in a thread of its own, as the core's executors would.
  void Spawn(absl::AnyInvocable<void()> work) {
    absl::MutexLock lock(&mutex_);
    threads_.emplace_back([work = std::move(work)]() mutable { std::move(work)(); });
  }
  void Join() {
    std::vector<std::thread> threads;
    {
      absl::MutexLock lock(&mutex_);
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::vector<DeviceInfo> ListDevices() override { return devices; }
  std::vector<CheckpointInfo> ListCheckpoints() override { return checkpoints; }
  absl::StatusOr<CheckpointPlan> PlanCheckpoint(const LoadSpec& spec) override {
    return plan(spec);
  }
  void LoadCheckpoint(const LoadSpec& spec, CancelTokenPtr cancel,
                      std::function<void(const LoadProgress&)> progress,
                      Done<LoadResult> done) override {
    load(spec, std::move(cancel), std::move(progress), std::move(done));
  }
  void ApplyLora(const ApplyLoraSpec& spec, CancelTokenPtr cancel,
                 Done<ApplyLoraResult> done) override {
    apply_lora(spec, std::move(cancel), std::move(done));
  }
  absl::StatusOr<std::string> SetClipSkip(const std::string& clip, int stop_at_layer) override {
    return clip_skip(clip, stop_at_layer);
  }
  std::vector<ModelInfo> ListModels() override { return models; }
  absl::StatusOr<std::vector<BlockPlacement>> Blocks(const std::string& handle) override {
    const auto found = blocks.find(handle);
    if (found == blocks.end()) return absl::NotFoundError(handle);
    return found->second;
  }
  void Unload(const UnloadSpec& spec, Done<UnloadReceipt> done) override {
    unload(spec, std::move(done));
  }
  std::vector<LinkInfo> Links() override { return links; }
  void EncodeText(const EncodeTextSpec& spec, CancelTokenPtr cancel,
                  Done<EncodeTextResult> done) override {
    encode_text(spec, std::move(cancel), std::move(done));
  }
  void Sample(const SampleSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
              Done<HostTensor> done) override {
    sample(spec, std::move(cancel), std::move(callbacks), std::move(done));
  }
  void Denoise(const DenoiseSpec& spec, CancelTokenPtr cancel, Done<HostTensor> done) override {
    denoise(spec, std::move(cancel), std::move(done));
  }
  void DecodeLatent(const DecodeLatentSpec& spec, CancelTokenPtr cancel,
                    Done<DecodeLatentResult> done) override {
    decode(spec, std::move(cancel), std::move(done));
  }
  void EncodeImage(const EncodeImageSpec& spec, CancelTokenPtr cancel,
                   Done<HostTensor> done) override {
    encode_image(spec, std::move(cancel), std::move(done));
  }
  void Infer(const InferSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
             Done<InferResult> done) override {
    infer(spec, std::move(cancel), std::move(callbacks), std::move(done));
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
};

// Waits until `cancel` says stop; the reason.
inline absl::Status AwaitCancellation(const CancelTokenPtr& cancel) {
  while (true) {
    absl::Status status = cancel->Check();
    if (!status.ok()) return status;
    std::this_thread::yield();
  }
}

}  // namespace distorch

#endif  // TESTS_SERVER_FAKE_CORE_H_
