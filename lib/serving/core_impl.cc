#include "lib/serving/core_impl.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <malloc.h>
#include <torch/version.h>

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/sha256.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/base/utf8.h"
#include "lib/device/measure_links.h"
#include "lib/distorch/allocation.h"

namespace distorch {
namespace {

constexpr int kMinStopAtLayer = -1000;

// Activations come and go with every layer: they are to reuse one heap, not to be mapped and zeroed
// anew each time, which glibc does from 32 MiB on, and in every other thread's arena. Weights have
// mappings of their own (lib/distorch/placement.cc), so that the heap does not keep them.
void KeepActivationsInOneHeap() {
  constexpr int kNeverTrim = std::numeric_limits<int>::max();
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, kNeverTrim);  // an unload trims
}

// The options' folders before those of --extra_model_paths.
absl::StatusOr<ExtraModelPaths> Folders(const CoreOptions& options) {
  ExtraModelPaths folders{options.checkpoint_dirs, options.lora_dirs, options.embedding_dirs,
                          options.vae_approx_dirs};
  if (options.extra_model_paths.empty()) return folders;
  auto extra = ReadExtraModelPaths(options.extra_model_paths);
  if (!extra.ok()) return Within("--extra_model_paths", extra.status());
  const auto append = [](const std::vector<std::string>& from, std::vector<std::string>* to) {
    to->insert(to->end(), from.begin(), from.end());
  };
  append(extra->checkpoints, &folders.checkpoints);
  append(extra->loras, &folders.loras);
  append(extra->embeddings, &folders.embeddings);
  append(extra->vae_approx, &folders.vae_approx);
  return folders;
}

// What --link says, or what real devices show. Devices whose links cannot be measured still serve.
absl::StatusOr<LinkTable> LinksBetween(const CoreOptions& options, const DeviceManager& devices,
                                       Observer* observer) {
  if (!options.links.empty()) {
    if (!devices.simulated()) {
      return absl::InvalidArgumentError(
          "--link: is for --simulate_devices; the links of real devices are measured");
    }
    auto links = ParseLinks(options.links, devices.devices());
    if (!links.ok()) return Within("--link", links.status());
    return links;
  }
  auto links = MeasureLinks(devices);
  if (links.ok()) return links;
  if (observer != nullptr) {
    observer->Warning(absl::StrCat("the links between devices could not be measured: ",
                                   links.status().message()));
  }
  return LinkTable();
}

Observer* NoObserver() {
  static Observer* const none = new Observer;
  return none;
}

std::vector<c10::Device> TorchDevices(const DeviceManager& devices) {
  std::vector<c10::Device> result;
  for (const DeviceId& device : devices.devices()) result.push_back(devices.TorchDevice(device));
  return result;
}

StreamerOptions StreamingOf(const CoreOptions& options, const DeviceManager& devices) {
  constexpr int64_t kMiB = 1 << 20;
  return {.staging_bytes = options.staging_mb * kMiB,
          .pinned_bytes = options.pinned_mb * kMiB,
          .simulated = devices.simulated() && !options.links.empty(),
          .wall_clock = nullptr};
}

}  // namespace

absl::StatusOr<std::unique_ptr<DaemonCore>> DaemonCore::Create(const CoreOptions& options,
                                                               Observer* observer) {
  if (options.threads < 0)
    return absl::InvalidArgumentError("--threads: must be 0 (all cores) or more");
  if (options.staging_mb < 0 || options.pinned_mb < 0)
    return absl::InvalidArgumentError("--staging_mb, --pinned_mb: must be 0 (none) or more");
  if (options.queue_limit < 1)
    return absl::InvalidArgumentError("--queue_limit: must be 1 or more");
  if (options.max_queued_per_client < 0)
    return absl::InvalidArgumentError("--max_queued_per_client: must be 0 (no limit) or more");
  const absl::StatusOr<Execution> execution = ParseExecution(options.execution);
  if (!execution.ok()) return Within("--execution", execution.status());
  ASSIGN_OR_RETURN(ExtraModelPaths folders, Folders(options));
  DeviceOptions device_options;
  device_options.simulate_devices = options.simulate_devices;
  device_options.compute_dtype = options.compute_dtype;
  ASSIGN_OR_RETURN(std::unique_ptr<DeviceManager> devices, DeviceManager::Create(device_options));
  RETURN_IF_ERROR(DeviceTeams::Check("--parallel", options.parallel, *devices));
  if (options.evict != "lru" && options.evict != "never")
    return absl::InvalidArgumentError("--evict: must be lru or never");
  if (options.restore != "lazy" && options.restore != "eager" && options.restore != "none")
    return absl::InvalidArgumentError("--restore: must be lazy, eager or none");
  std::unique_ptr<StateStore> store;
  if (!options.state_dir.empty()) {
    ASSIGN_OR_RETURN(
        store, StateStore::Open(options.state_dir, observer != nullptr ? observer : NoObserver()));
  }
  KeepActivationsInOneHeap();
  if (options.threads > 0) at::set_num_threads(options.threads);
  ASSIGN_OR_RETURN(LinkTable links, LinksBetween(options, *devices, observer));
  return std::make_unique<CoreImpl>(options, std::move(folders), std::move(devices),
                                    std::move(links), *execution, std::move(store), observer);
}

std::string TorchVersion() { return TORCH_VERSION; }

std::string CudaVersion() {
  if (!at::hasCUDA()) return "";
  return absl::StrCat(at::detail::getCUDAHooks().versionCUDART());
}

CoreImpl::CoreImpl(const CoreOptions& options, ExtraModelPaths folders,
                   std::unique_ptr<DeviceManager> devices, LinkTable links, Execution execution,
                   std::unique_ptr<StateStore> store, Observer* observer)
    : observer_(observer != nullptr ? observer : NoObserver()),
      checkpoints_("checkpoint", std::move(folders.checkpoints)),
      loras_("lora", std::move(folders.loras)),
      embeddings_("embedding", std::move(folders.embeddings)),
      devices_(std::move(devices)),
      links_(std::move(links)),
      ledger_(devices_->Memory(),
              [this](const DeviceId& device) { return devices_->AllocatedBytes(device); }),
      meter_(WithDisk(devices_->devices())),
      streamer_(StreamingOf(options, *devices_), TorchDevices(*devices_), links_, &meter_,
                &ledger_),
      store_(std::move(store)),
      registry_(store_.get()),
      forecasts_(*devices_, links_, StreamingOf(options, *devices_).staging_bytes, observer_),
      room_maker_(*devices_, &ledger_, &streamer_, &registry_, options.evict == "lru"),
      activations_(*devices_, &ledger_, &room_maker_, observer_),
      loader_(checkpoints_, *devices_, &ledger_, &registry_, &meter_, &streamer_, observer_,
              &forecasts_, &room_maker_, execution),
      lora_applier_(loras_, *devices_, &ledger_, &registry_, &streamer_),
      restorer_(&loader_, &lora_applier_, &registry_),
      preview_decoders_(std::move(folders.vae_approx), &meter_, observer_),
      teams_(*devices_, options.parallel, &streamer_, &runner_, observer_),
      inference_(devices_->devices(), &registry_, &runner_,
                 {&embeddings_, &preview_decoders_, &teams_, &activations_, observer_}),
      runner_(devices_->devices(), {options.queue_limit, options.max_queued_per_client}, observer_),
      load_executor_("load", options.queue_limit),
      unload_executor_("unload", options.queue_limit),
      lease_thread_([this] { EndLeases(); }) {
  MeasureDevices();
  if (store_ != nullptr) TakeOverHandles(options.restore);
}

void CoreImpl::MeasureDevices() {
  const absl::Status measured = forecasts_.MeasureDevices();
  if (!measured.ok()) {
    observer_->Warning(
        absl::StrCat("the speeds of devices could not be measured: ", measured.message()));
  }
  malloc_trim(0);  // what was multiplied and copied goes back to the system
}

CoreImpl::~CoreImpl() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (const CancelTokenPtr& load : loads_)
      load->Cancel(absl::CancelledError("the server is shutting down"));
  }
  lease_thread_.join();
}

std::vector<DeviceInfo> CoreImpl::ListDevices() {
  const std::map<DeviceId, Ledger::DeviceUse> use = ledger_.Use();
  std::vector<DeviceInfo> devices;
  for (const DeviceSnapshot& snapshot : devices_->Snapshot()) {
    DeviceInfo info;
    info.name = snapshot.device.ToString();
    info.kind = snapshot.kind;
    info.description = snapshot.description;
    info.uuid = snapshot.uuid;
    info.total_bytes = snapshot.total_bytes;
    info.free_bytes = snapshot.free_bytes;
    if (auto found = use.find(snapshot.device); found != use.end()) {
      info.weights_bytes = found->second.weights_bytes;
      info.reserved_bytes = found->second.reserved_bytes;
      info.activation_bytes = found->second.activation_bytes;
    }
    info.staging_bytes = meter_.staging_bytes(meter_.IndexOf(snapshot.device));
    // What is there, and what is still to come. A CPU does not count what is there: its memory is
    // everybody's.
    if (!snapshot.device.is_cpu()) {
      const int64_t held = std::exchange(
          info.activation_bytes, std::max<int64_t>(0, snapshot.total_bytes - snapshot.free_bytes -
                                                          info.weights_bytes - info.staging_bytes));
      info.reserved_bytes += std::max<int64_t>(0, held - info.activation_bytes);
    }
    info.queue_length = runner_.queue_length(snapshot.device);
    devices.push_back(std::move(info));
  }
  return devices;
}

absl::StatusOr<CheckpointPlan> CoreImpl::PlanCheckpoint(const LoadSpec& spec) {
  return RunTorchOr<CheckpointPlan>([&] { return loader_.Plan(spec); });
}

template <typename T, typename Work>
void CoreImpl::PostLoad(CancelTokenPtr cancel, Done<T> done, Work work) {
  {
    absl::MutexLock lock(&mutex_);
    loads_.insert(cancel);
  }
  auto shared_done = std::make_shared<Done<T>>(std::move(done));
  const auto forget = [this, cancel] {
    absl::MutexLock lock(&mutex_);
    loads_.erase(loads_.find(cancel));
    leases_changed_ = true;
  };
  Executor::Job job = [work = std::move(work), shared_done, forget] {
    absl::StatusOr<T> result = RunTorchOr<T>(work);
    if (!result.ok()) malloc_trim(0);  // what a failed load had placed goes back to the system
    forget();
    (*shared_done)(std::move(result));
  };
  if (absl::Status admitted = load_executor_.Post(job); !admitted.ok()) {
    forget();
    (*shared_done)(admitted);
  }
}

template <typename T, typename Spec, typename Call>
void CoreImpl::WithLoaded(const std::vector<std::string>& handles, const Spec& spec,
                          const CancelTokenPtr& cancel,
                          const std::function<void(std::string_view)>& phase, Done<T> done,
                          Call call) {
  if (std::optional<Registry::Holds> held = registry_.Hold(handles)) {
    return call(
        spec, [held = *std::move(held), done = std::move(done)](absl::StatusOr<T> result) mutable {
          held.clear();  // nothing is held any more when the caller knows
          done(std::move(result));
        });
  }
  if (phase) phase("load");
  Restore(registry_.StoredAmong(handles), cancel,
          [this, handles, spec, cancel, done = std::move(done),
           call = std::move(call)](const absl::Status& status) mutable {
            if (!status.ok()) return done(status);
            // Once more: something may have been evicted since.
            WithLoaded<T>(handles, spec, cancel, nullptr, std::move(done), std::move(call));
          });
}

void CoreImpl::Restore(std::vector<StoredHandle> stored, const CancelTokenPtr& cancel,
                       absl::AnyInvocable<void(const absl::Status&)> done) {
  Done<bool> ended = [done = std::move(done)](const absl::StatusOr<bool>& result) mutable {
    done(result.status());
  };
  PostLoad<bool>(cancel, std::move(ended),
                 [this, stored = std::move(stored), cancel]() -> absl::StatusOr<bool> {
                   RETURN_IF_ERROR(restorer_.Restore(stored, cancel, nullptr));
                   return true;
                 });
}

void CoreImpl::TakeOverHandles(const std::string& restore) {
  std::vector<std::string> handles;
  for (StoredHandle& stored : store_->All()) {
    handles.push_back(stored.handle);
    if (restore != "none") registry_.AddStored(std::move(stored));
  }
  if (restore == "none") store_->Remove(handles);
  if (restore != "eager") return;
  // One by one, so that what cannot be loaded any more keeps nothing else from it.
  for (const std::string& handle : handles) {
    Restore(
        registry_.StoredAmong({handle}), std::make_shared<CancelToken>(),
        [this, handle](const absl::Status& status) {
          if (!status.ok()) {
            observer_->Warning(absl::StrCat("cannot restore \"", handle, "\": ", status.message()));
          }
        });
  }
}

void CoreImpl::LoadCheckpoint(const LoadSpec& spec, CancelTokenPtr cancel,
                              std::function<void(const LoadProgress&)> progress,
                              Done<LoadResult> done) {
  PostLoad<LoadResult>(cancel, std::move(done),
                       [this, spec, cancel, progress = std::move(progress)] {
                         return loader_.Load(spec, cancel, progress);
                       });
}

void CoreImpl::ApplyLora(const ApplyLoraSpec& spec, CancelTokenPtr cancel,
                         Done<ApplyLoraResult> done) {
  PostLoad<ApplyLoraResult>(
      cancel, std::move(done), [this, spec, cancel]() -> absl::StatusOr<ApplyLoraResult> {
        RETURN_IF_ERROR(
            restorer_.Restore(registry_.StoredAmong({spec.model, spec.clip}), cancel, nullptr));
        return lora_applier_.Apply(spec, cancel);
      });
}

absl::StatusOr<std::string> CoreImpl::SetClipSkip(const std::string& clip, int stop_at_layer) {
  if (stop_at_layer > -1 || stop_at_layer < kMinStopAtLayer) {
    return absl::InvalidArgumentError(absl::StrCat("stop_at_layer: ", stop_at_layer,
                                                   " is out of range; allowed: ", kMinStopAtLayer,
                                                   " to -1 (the last layer)"));
  }
  return DeriveClipSkip(&registry_, clip, stop_at_layer);
}

void CoreImpl::Unload(const UnloadSpec& spec, Done<UnloadReceipt> done) {
  if (spec.handles.empty() != spec.all) {
    return done(absl::InvalidArgumentError("handles: give either handles or all"));
  }
  unload_executor_.PostAdmitted([this, spec, done = std::move(done)]() mutable {
    done(spec.all ? registry_.CloseAll(spec.force) : registry_.Close(spec.handles, spec.force));
  });
}

absl::StatusOr<std::vector<BlockPlacement>> CoreImpl::Blocks(const std::string& handle) {
  std::shared_ptr<const LoadedComponent> component = registry_.FindReady(handle);
  if (component == nullptr) {
    return absl::NotFoundError(absl::StrCat("no loaded handle ", Quoted(handle)));
  }
  while (component->base != nullptr) component = component->base;
  return component->blocks;
}

std::vector<LinkInfo> CoreImpl::Links() {
  std::map<std::pair<DeviceId, DeviceId>, LinkInfo> links;
  for (const auto& [ends, speed] : links_.entries()) {
    LinkInfo& link = links[ends];
    link.bytes_per_second = speed.bytes_per_second;
    link.latency_seconds = speed.latency_seconds;
    link.simulated = devices_->simulated();
  }
  for (const TransferMeter::Link& used : meter_.Links()) {
    LinkInfo& link = links[{used.from, used.to}];
    link.bytes = used.bytes;
    link.exposed_seconds = used.exposed_seconds;
    link.overlapped_seconds = used.overlapped_seconds;
  }
  std::vector<LinkInfo> result;
  for (auto& [ends, link] : links) {
    link.from = ends.first.ToString();
    link.to = ends.second.ToString();
    result.push_back(std::move(link));
  }
  return result;
}

void CoreImpl::EndLeases() {
  while (true) {
    const absl::Time next = registry_.CloseExpired(absl::Now());
    absl::MutexLock lock(&mutex_);
    const auto wakes = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return stopping_ || leases_changed_;
    };
    mutex_.AwaitWithDeadline(absl::Condition(&wakes), next);
    if (stopping_) return;
    leases_changed_ = false;
  }
}

void CoreImpl::EncodeText(const EncodeTextSpec& spec, CancelTokenPtr cancel,
                          Done<EncodeTextResult> done) {
  WithLoaded<EncodeTextResult>({spec.clip}, spec, cancel, nullptr, std::move(done),
                               [this, cancel](const auto& spec, Done<EncodeTextResult> done) {
                                 inference_.EncodeText(spec, cancel, std::move(done));
                               });
}

void CoreImpl::Sample(const SampleSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
                      Done<HostTensor> done) {
  WithLoaded<HostTensor>({spec.model}, spec, cancel, callbacks.phase, std::move(done),
                         [this, cancel, callbacks](const auto& spec, Done<HostTensor> done) {
                           inference_.Sample(spec, cancel, callbacks, std::move(done));
                         });
}

void CoreImpl::Denoise(const DenoiseSpec& spec, CancelTokenPtr cancel, Done<HostTensor> done) {
  WithLoaded<HostTensor>({spec.model}, spec, cancel, nullptr, std::move(done),
                         [this, cancel](const auto& spec, Done<HostTensor> done) {
                           inference_.Denoise(spec, cancel, std::move(done));
                         });
}

void CoreImpl::DecodeLatent(const DecodeLatentSpec& spec, CancelTokenPtr cancel,
                            Done<DecodeLatentResult> done) {
  WithLoaded<DecodeLatentResult>({spec.vae}, spec, cancel, nullptr, std::move(done),
                                 [this, cancel](const auto& spec, Done<DecodeLatentResult> done) {
                                   inference_.DecodeLatent(spec, cancel, std::move(done));
                                 });
}

void CoreImpl::EncodeImage(const EncodeImageSpec& spec, CancelTokenPtr cancel,
                           Done<HostTensor> done) {
  WithLoaded<HostTensor>({spec.vae}, spec, cancel, nullptr, std::move(done),
                         [this, cancel](const auto& spec, Done<HostTensor> done) {
                           inference_.EncodeImage(spec, cancel, std::move(done));
                         });
}

void CoreImpl::Infer(const InferSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
                     Done<InferResult> done) {
  if (!spec.loras.empty())
    return InferWithLoras(spec, std::move(cancel), std::move(callbacks), std::move(done));
  WithLoaded<InferResult>({spec.model, spec.clip, spec.vae}, spec, cancel, callbacks.phase,
                          std::move(done),
                          [this, cancel, callbacks](const auto& spec, Done<InferResult> done) {
                            inference_.Infer(spec, cancel, callbacks, std::move(done));
                          });
}

void CoreImpl::InferWithLoras(const InferSpec& spec, CancelTokenPtr cancel,
                              InferCallbacks callbacks, Done<InferResult> done) {
  if (callbacks.phase) callbacks.phase("load");
  Done<Inference::Pins> run = [this, spec, cancel, callbacks = std::move(callbacks),
                               done =
                                   std::move(done)](absl::StatusOr<Inference::Pins> pins) mutable {
    if (!pins.ok()) return done(pins.status());
    inference_.Infer(spec, *std::move(pins), cancel, std::move(callbacks), std::move(done));
  };
  PostLoad<Inference::Pins>(
      cancel, std::move(run), [this, spec, cancel]() -> absl::StatusOr<Inference::Pins> {
        RETURN_IF_ERROR(restorer_.Restore(registry_.StoredAmong({spec.model, spec.clip, spec.vae}),
                                          cancel, nullptr));
        ASSIGN_OR_RETURN(Inference::Pins pins, inference_.Acquire(spec, cancel));
        for (const InferLora& lora : spec.loras)
          RETURN_IF_ERROR(lora_applier_.ApplyTo(&pins.model, &pins.clip, lora, *cancel));
        return pins;
      });
}

}  // namespace distorch
