// The registry of loaded components under their handles.
//
// A handle names one component ("model", "clip" or "vae") of one checkpoint, loaded with given
// fields. Its life:
//   LOADING ──> READY ──> UNLOADING ──> gone
//      └────────────────────────────────^ (a load that failed or was cancelled)
//   STORED: evicted, or of a daemon before this one. It has no weights; the first request that uses
//   it loads it (LOADING), and where that fails it is STORED again.
// Requests pin what they use. Several handles may share one component (clip skip), and a component
// may share another's weights (adapters): memory goes with the last handle that uses it.
//
// A lease ends an idle handle, READY or STORED, so many seconds after it was last used, or asked
// for by an equal load.
#ifndef LIB_SERVING_REGISTRY_H_
#define LIB_SERVING_REGISTRY_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/cancellation.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/distorch/ledger.h"
#include "lib/models/diffusion_model.h"
#include "lib/models/vae_model.h"
#include "lib/serving/forecasts.h"
#include "lib/serving/load_spec.h"
#include "lib/serving/replicas.h"
#include "lib/serving/state_store.h"
#include "lib/serving/stored_handle.h"
#include "lib/text/text_encoder.h"

namespace distorch {

enum class ComponentKind { kModel, kClip, kVae };
// "model", "clip", "vae": what handles start with and ListModels says.
std::string_view ComponentKindName(ComponentKind kind);

// Tensors that are stored: what is accounted for, once, whoever computes with them. Immutable;
// freed with its last reference.
struct Holding {
  virtual ~Holding() = default;

  std::vector<DeviceBytes> devices;
  Reservation reservation;
};

struct AppliedLora {
  std::string name;
  double strength = 1;
};

// A component with its weights in place: a checkpoint's, or one that shares the weights of another
// and has only what an adapter adds. Immutable; freed with its last reference.
struct LoadedComponent {
  ComponentKind kind = ComponentKind::kModel;
  std::string base_handle;  // the handle that names it alone, without clip skip
  std::string ckpt_name, family;
  // How that of the checkpoint can be made again; without a handle's name and steps.
  StoredHandle recipe;
  std::shared_ptr<const CheckpointFile> file;   // the weights' TensorInfos point into its index
  std::shared_ptr<const LoadedComponent> base;  // whose weights it shares; null: they are its own
  // What it has beside the base's weights. Several may have the tensors of one adapter.
  std::shared_ptr<const Holding> holding;
  std::unique_ptr<nn::Component> component;
  ComponentPlacement placement;        // as it was loaded, without blocks
  std::vector<BlockPlacement> blocks;  // the base's, if it has one
  LoaderFields fields;                 // of the node, those that concern this component
  std::vector<AppliedLora> loras;      // what changed it, in the order applied
  bool high_precision_loras = true;
  // What was asked for, and with "auto" decided: an equal request finds it (FindRequested).
  std::string request;
  StepPlacement step;
  StepForecasts* forecasts = nullptr;  // of its steps, where it has any
  double predicted_step_seconds = 0;   // of a usual step; 0: not known, or no diffusion model
  // Of a model.
  const std::unique_ptr<Replicas> replicas = std::make_unique<Replicas>();

  // Of the type that `kind` says.
  const models::DiffusionModel& model() const {
    return static_cast<const models::DiffusionModel&>(*component);
  }
  const text::TextEncoder& clip() const {
    return static_cast<const text::TextEncoder&>(*component);
  }
  const models::VaeModel& vae() const { return static_cast<const models::VaeModel&>(*component); }
};

class Registry;

// Keeps a component loaded while a request uses it. Move-only; the registry must outlive it.
class Pin {
 public:
  Pin() = default;
  Pin(Pin&& other) noexcept;
  Pin& operator=(Pin&& other) noexcept;
  ~Pin();

  const LoadedComponent& operator*() const { return *component_; }
  const LoadedComponent* operator->() const { return component_.get(); }
  const std::shared_ptr<const LoadedComponent>& component() const { return component_; }
  const std::string& handle() const { return handle_; }
  int stop_at_layer() const { return stop_at_layer_; }  // of a clip handle, as TextEncoder's

  // From now on it is `component` that is computed with, which shares the weights of what was; no
  // handle names it, and List counts what it holds as the pinned handle's.
  void Use(std::shared_ptr<const LoadedComponent> component);

 private:
  friend class Registry;
  Registry* registry_ = nullptr;
  std::string handle_;
  std::shared_ptr<const LoadedComponent> component_;
  CancelTokenPtr cancel_;
  int stop_at_layer_ = text::kFamilysLayer;
};

// Thread-safe.
class Registry {
 public:
  // What is READY is written to `store`, which outlives the registry, and removed when it is
  // closed; null: nowhere. `now`: the clock of last uses.
  explicit Registry(StateStore* store = nullptr, std::function<absl::Time()> now = absl::Now)
      : store_(store), now_(std::move(now)) {}

  // A handle of the store: STORED, unless it is there.
  void AddStored(StoredHandle stored) ABSL_LOCKS_EXCLUDED(mutex_);
  // The recipes of those of `handles` that must be loaded before they are used: STORED ones, and
  // those of them that are LOADING.
  std::vector<StoredHandle> StoredAmong(const std::vector<std::string>& handles) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Keeps `handles` from being evicted, and from nothing else, as long as it lives; nullopt when
  // StoredAmong has one.
  using Holds = std::vector<std::shared_ptr<void>>;
  std::optional<Holds> Hold(const std::vector<std::string>& handles) ABSL_LOCKS_EXCLUDED(mutex_);

  // Pins `handle` for a request that `cancel` stops. NOT_FOUND for a stale or unknown handle,
  // FAILED_PRECONDITION while it is loading, UNAVAILABLE when it is STORED (evicted a moment ago;
  // lib/base/retry_delay.h), INVALID_ARGUMENT (naming `field`) for a handle of another kind.
  absl::StatusOr<Pin> Acquire(std::string_view field, const std::string& handle, ComponentKind kind,
                              CancelTokenPtr cancel) ABSL_LOCKS_EXCLUDED(mutex_);

  // The component of a READY handle, else null.
  std::shared_ptr<const LoadedComponent> FindReady(const std::string& handle) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // A load's side: the handle appears as LOADING, then Publish makes it READY or Abandon removes
  // it. `cancel` stops the load. Waits for an unloading of the same handle to end.
  void BeginLoading(const std::string& handle, ComponentKind kind, const std::string& ckpt_name,
                    const std::string& family, CancelTokenPtr cancel) ABSL_LOCKS_EXCLUDED(mutex_);
  void Publish(std::shared_ptr<const LoadedComponent> component) ABSL_LOCKS_EXCLUDED(mutex_);
  void Abandon(const std::string& handle) ABSL_LOCKS_EXCLUDED(mutex_);

  // A further READY handle, with the lease of `source`: for the component of `source`, or for one
  // that shares its weights; `step` is how it came of `source`. An equal handle that is there stays
  // as it is; one that is being unloaded is waited for. ABORTED when `source` is being unloaded by
  // force.
  absl::Status Derive(const Pin& source, const std::string& handle,
                      std::shared_ptr<const LoadedComponent> component, int stop_at_layer,
                      const StoredStep& step) ABSL_LOCKS_EXCLUDED(mutex_);
  // The component that `base_handle` names, under whichever READY handle, or below one as the base
  // of what adapters made of it; else null.
  std::shared_ptr<const LoadedComponent> FindComponent(const std::string& base_handle) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The component of `ckpt_name` that was loaded for `request` and is READY; else null.
  std::shared_ptr<const LoadedComponent> FindRequested(const std::string& ckpt_name,
                                                       const std::string& request) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // How long after its last use, or this call, an idle handle ends by itself:
  // absl::InfiniteDuration() for never. Unknown handles are ignored.
  void SetLease(const std::string& handle, absl::Duration lease) ABSL_LOCKS_EXCLUDED(mutex_);

  // Closes `handles` (all or none): they become UNLOADING and stale at once. Handles in use:
  // FAILED_PRECONDITION, or with `force` their requests and loads are cancelled with ABORTED.
  // Blocks until the pins are gone. An unknown handle is NOT_FOUND. The receipt counts what was
  // really freed: components that no other handle uses.
  absl::StatusOr<UnloadReceipt> Close(const std::vector<std::string>& handles, bool force)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Frees the weights of idle handles without a lease and not in `keep`, which are STORED then:
  // those that were used least recently first, as far as needed to free `lacking` bytes by device;
  // none when that is not enough. How many handles.
  int Evict(const BytesByDevice& lacking, const std::set<std::string>& keep)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The same of all idle handles not in `keep`, leases or not.
  int EvictIdle(const std::set<std::string>& keep) ABSL_LOCKS_EXCLUDED(mutex_);
  // The same of the handles that compute with the component `base_handle`, if that reads weights
  // from a file that was written to since. Requests that use them end with DATA_LOSS, as they would
  // when they read on; blocks until they have.
  void EvictDamaged(const std::string& base_handle) ABSL_LOCKS_EXCLUDED(mutex_);
  // All handles but those still loading (unless `force`); in use only with `force`.
  absl::StatusOr<UnloadReceipt> CloseAll(bool force) ABSL_LOCKS_EXCLUDED(mutex_);
  // Closes idle handles whose lease has ended at `now`; returns when the next one may end.
  absl::Time CloseExpired(absl::Time now) ABSL_LOCKS_EXCLUDED(mutex_);
  // Bytes by device that EvictIdle(keep) would free; with `evictable_only`, that Evict may.
  BytesByDevice IdleBytes(const std::set<std::string>& keep, bool evictable_only = false) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  std::vector<ModelInfo> List() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class Pin;
  using Holdings = std::set<std::shared_ptr<const Holding>>;
  enum class State { kStored, kLoading, kReady, kUnloading };
  struct Entry {
    ComponentKind kind = ComponentKind::kModel;
    State state = State::kLoading;
    std::string ckpt_name, family;
    int stop_at_layer = text::kFamilysLayer;
    std::shared_ptr<const LoadedComponent> component;  // null while STORED or LOADING
    std::multiset<CancelTokenPtr> users;               // a pin each; while loading, the load
    std::weak_ptr<void> hold;                          // of all who hold it
    std::vector<std::weak_ptr<const LoadedComponent>> adapted;  // Pin::Use
    absl::Duration lease = absl::InfiniteDuration();
    absl::Time last_used = absl::InfinitePast();
    StoredHandle recipe;     // of a handle that is, or was, READY
    bool is_stored = false;  // STORED, or LOADING from it
  };

  static std::string_view StateName(State state);
  void NoteAdapted(const std::string& handle,
                   const std::shared_ptr<const LoadedComponent>& component)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Unpin(const std::string& handle, const CancelTokenPtr& cancel) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckClosable(const std::vector<std::string>& handles, bool force) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Store(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  BytesByDevice BytesFreedBy(const std::vector<std::string>& closing) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::string> EvictableHandles(const std::set<std::string>& keep) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  UnloadReceipt CloseLocked(const std::vector<std::string>& handles)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int EvictLocked(const std::vector<std::string>& handles) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::string> IdleHandles(const std::set<std::string>& keep) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::string> HandlesMatching(bool (*matches)(const Entry&)) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  StateStore* const store_;
  const std::function<absl::Time()> now_;
  mutable absl::Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace distorch

#endif  // LIB_SERVING_REGISTRY_H_
