// DaemonCore's calls, waited for: what tests of the core are written with.
#ifndef TESTS_SUPPORT_CORE_CLIENT_H_
#define TESTS_SUPPORT_CORE_CLIENT_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "lib/serving/daemon_core.h"

namespace distorch {

// Calls start(done) and returns what done hears.
template <typename T, typename Start>
absl::StatusOr<T> Await(Start start) {
  absl::StatusOr<T> result = absl::UnknownError("never called");
  absl::Notification called;
  start(Done<T>([&](absl::StatusOr<T> answer) {
    result = std::move(answer);
    called.Notify();
  }));
  called.WaitForNotification();
  return result;
}

class CoreClient {
 public:
  explicit CoreClient(DaemonCore* core) : core_(core) {}

  absl::StatusOr<LoadResult> Load(const LoadSpec& spec, CancelTokenPtr cancel = NoCancel(),
                                  std::function<void(const LoadProgress&)> progress = nullptr) {
    return Await<LoadResult>(
        [&](auto done) { core_->LoadCheckpoint(spec, cancel, progress, std::move(done)); });
  }
  absl::StatusOr<UnloadReceipt> Unload(const UnloadSpec& spec) {
    return Await<UnloadReceipt>([&](auto done) { core_->Unload(spec, std::move(done)); });
  }
  absl::StatusOr<UnloadReceipt> UnloadAll() {
    UnloadSpec spec;
    spec.all = true;
    return Unload(spec);
  }
  absl::StatusOr<ApplyLoraResult> ApplyLora(const ApplyLoraSpec& spec) {
    return Await<ApplyLoraResult>(
        [&](auto done) { core_->ApplyLora(spec, NoCancel(), std::move(done)); });
  }
  absl::StatusOr<EncodeTextResult> EncodeText(const EncodeTextSpec& spec) {
    return Await<EncodeTextResult>(
        [&](auto done) { core_->EncodeText(spec, NoCancel(), std::move(done)); });
  }
  absl::StatusOr<HostTensor> Sample(const SampleSpec& spec, CancelTokenPtr cancel = NoCancel(),
                                    InferCallbacks callbacks = {}) {
    return Await<HostTensor>(
        [&](auto done) { core_->Sample(spec, cancel, callbacks, std::move(done)); });
  }
  absl::StatusOr<HostTensor> Denoise(const DenoiseSpec& spec) {
    return Await<HostTensor>([&](auto done) { core_->Denoise(spec, NoCancel(), std::move(done)); });
  }
  absl::StatusOr<DecodeLatentResult> Decode(const DecodeLatentSpec& spec) {
    return Await<DecodeLatentResult>(
        [&](auto done) { core_->DecodeLatent(spec, NoCancel(), std::move(done)); });
  }
  absl::StatusOr<HostTensor> EncodeImage(const EncodeImageSpec& spec) {
    return Await<HostTensor>(
        [&](auto done) { core_->EncodeImage(spec, NoCancel(), std::move(done)); });
  }
  absl::StatusOr<InferResult> Infer(const InferSpec& spec, CancelTokenPtr cancel = NoCancel(),
                                    InferCallbacks callbacks = {}) {
    return Await<InferResult>(
        [&](auto done) { core_->Infer(spec, cancel, callbacks, std::move(done)); });
  }

 private:
  static CancelTokenPtr NoCancel() { return std::make_shared<CancelToken>(); }

  DaemonCore* core_;
};

}  // namespace distorch

#endif  // TESTS_SUPPORT_CORE_CLIENT_H_
