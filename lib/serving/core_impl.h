// DaemonCore put together from its parts.
#ifndef LIB_SERVING_CORE_IMPL_H_
#define LIB_SERVING_CORE_IMPL_H_

#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "lib/device/device_manager.h"
#include "lib/device/links.h"
#include "lib/distorch/ledger.h"
#include "lib/distorch/streamer.h"
#include "lib/distorch/transfer_meter.h"
#include "lib/serving/activation_room.h"
#include "lib/serving/checkpoint_folders.h"
#include "lib/serving/daemon_core.h"
#include "lib/serving/executor.h"
#include "lib/serving/forecasts.h"
#include "lib/serving/inference.h"
#include "lib/serving/loader.h"
#include "lib/serving/lora_applier.h"
#include "lib/serving/observer.h"
#include "lib/serving/phases.h"
#include "lib/serving/preview_decoders.h"
#include "lib/serving/registry.h"
#include "lib/serving/restorer.h"
#include "lib/serving/room_maker.h"
#include "lib/serving/state_store.h"

namespace distorch {

class CoreImpl : public DaemonCore {
 public:
  CoreImpl(const CoreOptions& options, ExtraModelPaths folders,
           std::unique_ptr<DeviceManager> devices, LinkTable links, Execution execution,
           std::unique_ptr<StateStore> store, Observer* observer);
  ~CoreImpl() override;

  std::vector<DeviceInfo> ListDevices() override;
  std::vector<CheckpointInfo> ListCheckpoints() override { return loader_.ListCheckpoints(); }
  absl::StatusOr<CheckpointPlan> PlanCheckpoint(const LoadSpec& spec) override;
  void LoadCheckpoint(const LoadSpec& spec, CancelTokenPtr cancel,
                      std::function<void(const LoadProgress&)> progress,
                      Done<LoadResult> done) override;
  void ApplyLora(const ApplyLoraSpec& spec, CancelTokenPtr cancel,
                 Done<ApplyLoraResult> done) override;
  absl::StatusOr<std::string> SetClipSkip(const std::string& clip, int stop_at_layer) override;
  std::vector<ModelInfo> ListModels() override { return registry_.List(); }
  absl::StatusOr<std::vector<BlockPlacement>> Blocks(const std::string& handle) override;
  void Unload(const UnloadSpec& spec, Done<UnloadReceipt> done) override;
  std::vector<LinkInfo> Links() override;

  void EncodeText(const EncodeTextSpec& spec, CancelTokenPtr cancel,
                  Done<EncodeTextResult> done) override;
  void Sample(const SampleSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
              Done<HostTensor> done) override;
  void Denoise(const DenoiseSpec& spec, CancelTokenPtr cancel, Done<HostTensor> done) override;
  void DecodeLatent(const DecodeLatentSpec& spec, CancelTokenPtr cancel,
                    Done<DecodeLatentResult> done) override;
  void EncodeImage(const EncodeImageSpec& spec, CancelTokenPtr cancel,
                   Done<HostTensor> done) override;
  void Infer(const InferSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
             Done<InferResult> done) override;

 private:
  // Runs `work` on the load executor, where shutting down cancels it.
  template <typename T, typename Work>
  void PostLoad(CancelTokenPtr cancel, Done<T> done, Work work);
  // call(spec, done), once those of `handles` that are STORED are loaded.
  template <typename T, typename Spec, typename Call>
  void WithLoaded(const std::vector<std::string>& handles, const Spec& spec,
                  const CancelTokenPtr& cancel, const std::function<void(std::string_view)>& phase,
                  Done<T> done, Call call);
  void Restore(std::vector<StoredHandle> stored, const CancelTokenPtr& cancel,
               absl::AnyInvocable<void(const absl::Status&)> done);
  void InferWithLoras(const InferSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
                      Done<InferResult> done);
  void MeasureDevices();
  void TakeOverHandles(const std::string& restore);
  void EndLeases();

  Observer* const observer_;
  const ModelFolders checkpoints_, loras_, embeddings_;
  const std::unique_ptr<DeviceManager> devices_;
  const LinkTable links_;
  Ledger ledger_;
  TransferMeter meter_;
  Streamer streamer_;  // outlives what is loaded
  const std::unique_ptr<StateStore> store_;
  Registry registry_;
  StepForecasts forecasts_;
  const RoomMaker room_maker_;
  ActivationRoom activations_;
  Loader loader_;
  LoraApplier lora_applier_;
  Restorer restorer_;
  PreviewDecoders preview_decoders_;
  DeviceTeams teams_;
  Inference inference_;
  PhaseRunner runner_;  // after what its requests use: they end before that goes
  absl::Mutex mutex_;
  std::multiset<CancelTokenPtr> loads_ ABSL_GUARDED_BY(mutex_);  // waiting and under way
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool leases_changed_ ABSL_GUARDED_BY(mutex_) = false;
  Executor load_executor_;    // loads and adapters, one at a time
  Executor unload_executor_;  // unloads may wait for a load to notice that it is cancelled
  std::thread lease_thread_;
};

}  // namespace distorch

#endif  // LIB_SERVING_CORE_IMPL_H_
