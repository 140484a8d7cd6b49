#include "lib/serving/registry.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/retry_delay.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/serving/eviction.h"

namespace distorch {
namespace {

absl::Status Stale(const std::string& handle) {
  return absl::NotFoundError(
      absl::StrCat("handle \"", handle, "\" is not loaded (unloaded, or never was)"));
}

// Adds what `component` and those whose weights it shares hold; returns what was not there.
std::vector<std::shared_ptr<const Holding>> AddHoldings(
    const LoadedComponent* component, std::set<std::shared_ptr<const Holding>>* holdings) {
  std::vector<std::shared_ptr<const Holding>> added;
  for (; component != nullptr; component = component->base.get()) {
    if (holdings->insert(component->holding).second) added.push_back(component->holding);
  }
  return added;
}

// The component that `base_handle` names among `component` and those whose weights it shares; else
// null.
std::shared_ptr<const LoadedComponent> WithHandle(
    const std::string& base_handle, std::shared_ptr<const LoadedComponent> component) {
  while (component != nullptr && component->base_handle != base_handle) component = component->base;
  return component;
}

// Why its weights can no longer be read, of one that has some on disk.
absl::Status CheckFile(const LoadedComponent& component) {
  const std::vector<DeviceBytes>& devices = component.holding->devices;
  const bool reads = std::any_of(devices.begin(), devices.end(), [](const DeviceBytes& device) {
    return device.device == kDisk.ToString();
  });
  return reads ? component.file->CheckUnchanged() : absl::OkStatus();
}

// What a component computes with on each device, those with the weights first.
std::vector<DeviceBytes> AllDevices(const LoadedComponent& component) {
  std::vector<DeviceBytes> merged;
  if (component.base != nullptr) merged = AllDevices(*component.base);
  for (const DeviceBytes& own : component.holding->devices) {
    const auto same = std::find_if(merged.begin(), merged.end(), [&](const DeviceBytes& device) {
      return device.device == own.device;
    });
    if (same == merged.end()) {
      merged.push_back(own);
      continue;
    }
    same->planned_bytes += own.planned_bytes;
    same->measured_bytes += own.measured_bytes;
    same->blocks += own.blocks;
  }
  return merged;
}

}  // namespace

std::string_view ComponentKindName(ComponentKind kind) {
  switch (kind) {
    case ComponentKind::kModel:
      return "model";
    case ComponentKind::kClip:
      return "clip";
    case ComponentKind::kVae:
      return "vae";
  }
  return "";
}

Pin::Pin(Pin&& other) noexcept
    : registry_(std::exchange(other.registry_, nullptr)),
      handle_(std::move(other.handle_)),
      component_(std::move(other.component_)),
      cancel_(std::move(other.cancel_)),
      stop_at_layer_(other.stop_at_layer_) {}

Pin& Pin::operator=(Pin&& other) noexcept {
  std::swap(registry_, other.registry_);
  std::swap(handle_, other.handle_);
  std::swap(component_, other.component_);
  std::swap(cancel_, other.cancel_);
  std::swap(stop_at_layer_, other.stop_at_layer_);
  return *this;
}

Pin::~Pin() {
  component_.reset();  // before Unpin: whoever waits for the pin may then be the last owner
  if (registry_ != nullptr) registry_->Unpin(handle_, cancel_);
}

void Pin::Use(std::shared_ptr<const LoadedComponent> component) {
  registry_->NoteAdapted(handle_, component);
  component_ = std::move(component);
}

void Registry::NoteAdapted(const std::string& handle,
                           const std::shared_ptr<const LoadedComponent>& component) {
  absl::MutexLock lock(&mutex_);
  auto& adapted = entries_.at(handle).adapted;
  std::erase_if(adapted, [](const auto& other) { return other.expired(); });
  adapted.push_back(component);
}

void Registry::AddStored(StoredHandle stored) {
  absl::MutexLock lock(&mutex_);
  Entry entry;
  entry.state = State::kStored;
  for (const ComponentKind kind :
       {ComponentKind::kModel, ComponentKind::kClip, ComponentKind::kVae}) {
    if (stored.kind == ComponentKindName(kind)) entry.kind = kind;
  }
  entry.ckpt_name = stored.load.ckpt_name;
  entry.family = stored.family;
  entry.is_stored = true;
  entry.recipe = std::move(stored);
  const std::string handle = entry.recipe.handle;
  if (const auto [added, is_new] = entries_.try_emplace(handle, std::move(entry)); is_new)
    Store(added->second);
}

std::vector<StoredHandle> Registry::StoredAmong(const std::vector<std::string>& handles) const {
  absl::MutexLock lock(&mutex_);
  std::vector<StoredHandle> stored;
  for (const std::string& handle : handles) {
    const auto found = entries_.find(handle);
    if (found != entries_.end() && found->second.is_stored) stored.push_back(found->second.recipe);
  }
  return stored;
}

void Registry::Store(const Entry& entry) {
  if (store_ != nullptr) store_->Put(entry.recipe);
}

absl::StatusOr<Pin> Registry::Acquire(std::string_view field, const std::string& handle,
                                      ComponentKind kind, CancelTokenPtr cancel) {
  absl::MutexLock lock(&mutex_);
  auto found = entries_.find(handle);
  if (found == entries_.end() || found->second.state == State::kUnloading) {
    return Within(field, Stale(handle));
  }
  Entry& entry = found->second;
  if (entry.kind != kind) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": \"", handle, "\" is a ", ComponentKindName(entry.kind),
                     " handle, expected a ", ComponentKindName(kind), " handle"));
  }
  if (entry.state == State::kStored) {
    const absl::Status evicted = absl::UnavailableError(
        absl::StrCat(field, ": \"", handle, "\" was evicted at this moment; try again"));
    return RetryAfter(evicted, absl::Milliseconds(500));
  }
  if (entry.state != State::kReady) {
    return absl::FailedPreconditionError(
        absl::StrCat(field, ": \"", handle, "\" is still loading"));
  }
  entry.users.insert(cancel);
  Pin pin;
  pin.registry_ = this;
  pin.handle_ = handle;
  pin.component_ = entry.component;
  pin.cancel_ = std::move(cancel);
  pin.stop_at_layer_ = entry.stop_at_layer;
  return pin;
}

std::optional<Registry::Holds> Registry::Hold(const std::vector<std::string>& handles) {
  absl::MutexLock lock(&mutex_);
  Holds holds;
  for (const std::string& handle : handles) {
    const auto found = entries_.find(handle);
    if (found == entries_.end()) continue;
    if (found->second.is_stored) return std::nullopt;
    std::shared_ptr<void> hold = found->second.hold.lock();
    if (hold == nullptr) found->second.hold = hold = std::make_shared<int>();
    holds.push_back(std::move(hold));
  }
  return holds;
}

void Registry::Unpin(const std::string& handle, const CancelTokenPtr& cancel) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = entries_.at(handle);
  entry.users.erase(entry.users.find(cancel));
  entry.last_used = now_();
}

std::shared_ptr<const LoadedComponent> Registry::FindReady(const std::string& handle) const {
  absl::MutexLock lock(&mutex_);
  auto found = entries_.find(handle);
  if (found == entries_.end() || found->second.state != State::kReady) return nullptr;
  return found->second.component;
}

void Registry::BeginLoading(const std::string& handle, ComponentKind kind,
                            const std::string& ckpt_name, const std::string& family,
                            CancelTokenPtr cancel) {
  absl::MutexLock lock(&mutex_);
  const auto is_free = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto found = entries_.find(handle);
    return found == entries_.end() || found->second.state == State::kStored;
  };
  mutex_.Await(absl::Condition(&is_free));
  Entry& entry = entries_[handle];
  entry.state = State::kLoading;
  entry.kind = kind;
  entry.ckpt_name = ckpt_name;
  entry.family = family;
  entry.users.insert(std::move(cancel));
}

void Registry::Publish(std::shared_ptr<const LoadedComponent> component) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = entries_.at(component->base_handle);
  entry.users.clear();
  // Somebody may be unloading it by force already: then it stays so, and goes as soon as it is seen
  // here.
  if (entry.state == State::kLoading) entry.state = State::kReady;
  entry.component = std::move(component);
  entry.is_stored = false;
  entry.recipe = entry.component->recipe;
  entry.recipe.handle = entry.recipe.base = entry.component->base_handle;
  entry.last_used = now_();
  if (entry.state == State::kReady) Store(entry);
}

void Registry::Abandon(const std::string& handle) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = entries_.at(handle);
  entry.users.clear();
  // An unloader that waits for the load erases the entry itself.
  if (entry.state != State::kLoading) return;
  if (entry.is_stored) {
    entry.state = State::kStored;
  } else {
    entries_.erase(handle);
  }
}

absl::Status Registry::Derive(const Pin& source, const std::string& handle,
                              std::shared_ptr<const LoadedComponent> component, int stop_at_layer,
                              const StoredStep& step) {
  absl::MutexLock lock(&mutex_);
  const auto is_settled = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    auto found = entries_.find(handle);
    return found == entries_.end() || found->second.state == State::kReady ||
           found->second.state == State::kStored;
  };
  mutex_.Await(absl::Condition(&is_settled));
  Entry entry = entries_.at(source.handle());
  if (entry.state == State::kUnloading) {
    return absl::AbortedError(absl::StrCat("\"", source.handle(), "\" was unloaded by force"));
  }
  entry.users.clear();
  entry.adapted.clear();
  entry.hold.reset();
  entry.component = std::move(component);
  entry.stop_at_layer = stop_at_layer;
  entry.last_used = now_();
  Entry& derived = entries_[handle];  // a new one is LOADING
  if (derived.state == State::kReady) return absl::OkStatus();
  derived = std::move(entry);
  derived.recipe.handle = handle;
  derived.recipe.base = derived.component->base_handle;
  AddStep(step, &derived.recipe);
  Store(derived);
  return absl::OkStatus();
}

std::shared_ptr<const LoadedComponent> Registry::FindComponent(
    const std::string& base_handle) const {
  absl::MutexLock lock(&mutex_);
  for (const auto& [handle, entry] : entries_) {
    if (entry.state != State::kReady) continue;
    if (auto component = WithHandle(base_handle, entry.component)) return component;
  }
  return nullptr;
}

std::shared_ptr<const LoadedComponent> Registry::FindRequested(const std::string& ckpt_name,
                                                               const std::string& request) const {
  absl::MutexLock lock(&mutex_);
  for (const auto& [handle, entry] : entries_) {
    if (entry.state == State::kReady && entry.ckpt_name == ckpt_name &&
        entry.component->request == request) {
      return entry.component;
    }
  }
  return nullptr;
}

void Registry::SetLease(const std::string& handle, absl::Duration lease) {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(handle);
  if (found == entries_.end()) return;
  found->second.lease = lease;
  found->second.last_used = now_();
}

absl::Status Registry::CheckClosable(const std::vector<std::string>& handles, bool force) const {
  for (const std::string& handle : handles) {
    auto found = entries_.find(handle);
    if (found == entries_.end() || found->second.state == State::kUnloading) return Stale(handle);
    if (!force && !found->second.users.empty()) {
      return absl::FailedPreconditionError(
          found->second.state == State::kLoading
              ? absl::StrCat("handle \"", handle,
                             "\" is still loading; unload with force to cancel the load")
              : absl::StrCat("handle \"", handle, "\" is in use by ", found->second.users.size(),
                             " request(s); unload with force to end them"));
    }
  }
  return absl::OkStatus();
}

UnloadReceipt Registry::CloseLocked(const std::vector<std::string>& handles) {
  if (store_ != nullptr && !handles.empty()) store_->Remove(handles);
  for (const std::string& handle : handles) {
    Entry& entry = entries_.at(handle);
    entry.state = State::kUnloading;
    for (const CancelTokenPtr& user : entry.users) {
      user->Cancel(absl::AbortedError(absl::StrCat("\"", handle, "\" was unloaded by force")));
    }
  }
  std::vector<std::shared_ptr<const LoadedComponent>> components;
  Holdings closed, kept;
  UnloadReceipt receipt;
  for (const std::string& handle : handles) {
    Entry& entry = entries_.at(handle);
    mutex_.Await(absl::Condition(
        +[](Entry* e) { return e->users.empty(); }, &entry));
    AddHoldings(entry.component.get(), &closed);
    components.push_back(std::move(entry.component));
    entries_.erase(handle);
    ++receipt.handles_closed;
  }
  for (const auto& [handle, entry] : entries_) AddHoldings(entry.component.get(), &kept);
  for (const auto& holding : closed) {
    if (kept.contains(holding)) continue;
    for (const DeviceBytes& device : holding->devices) {
      // What stayed on disk took nothing that could be freed.
      if (device.device != kDisk.ToString())
        receipt.freed_bytes[device.device] += device.measured_bytes;
    }
  }
  // Frees the weights, and what they were accounted for by, before anybody is told that they are
  // free; and the host's allocator gives its part back to the system.
  components.clear();
  closed.clear();
  malloc_trim(0);
  return receipt;
}

absl::StatusOr<UnloadReceipt> Registry::Close(const std::vector<std::string>& handles, bool force) {
  absl::MutexLock lock(&mutex_);
  const std::set<std::string> unique(handles.begin(), handles.end());
  const std::vector<std::string> list(unique.begin(), unique.end());
  RETURN_IF_ERROR(CheckClosable(list, force));
  return CloseLocked(list);
}

absl::StatusOr<UnloadReceipt> Registry::CloseAll(bool force) {
  absl::MutexLock lock(&mutex_);
  const std::vector<std::string> handles =
      force ? HandlesMatching([](const Entry& e) { return e.state != State::kUnloading; })
            : HandlesMatching([](const Entry& e) {
                return e.state == State::kReady || e.state == State::kStored;
              });
  RETURN_IF_ERROR(CheckClosable(handles, force));
  return CloseLocked(handles);
}

absl::Time Registry::CloseExpired(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> expired;
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [handle, entry] : entries_) {
    const bool is_open = entry.state == State::kReady || entry.state == State::kStored;
    if (!is_open || entry.lease == absl::InfiniteDuration()) continue;
    const absl::Time expiry = entry.last_used + entry.lease;
    if (expiry > now) {
      next = std::min(next, expiry);
    } else if (entry.users.empty()) {
      expired.push_back(handle);
    } else {
      next = std::min(next, now + absl::Seconds(1));  // in use: look again soon
    }
  }
  if (!expired.empty()) CloseLocked(expired);
  return next;
}

BytesByDevice Registry::BytesFreedBy(const std::vector<std::string>& closing) const {
  const std::set<std::string> closed(closing.begin(), closing.end());
  Holdings freed, kept;
  for (const auto& [handle, entry] : entries_)
    AddHoldings(entry.component.get(), closed.contains(handle) ? &freed : &kept);
  BytesByDevice bytes;
  for (const auto& holding : freed) {
    if (kept.contains(holding)) continue;
    for (const auto& [device, n] : holding->reservation.bytes()) bytes[device] += n;
  }
  return bytes;
}

BytesByDevice Registry::IdleBytes(const std::set<std::string>& keep, bool evictable_only) const {
  absl::MutexLock lock(&mutex_);
  return BytesFreedBy(evictable_only ? EvictableHandles(keep) : IdleHandles(keep));
}

std::vector<std::string> Registry::EvictableHandles(const std::set<std::string>& keep) const {
  std::vector<std::string> handles = IdleHandles(keep);
  std::erase_if(handles, [this](const std::string& handle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return entries_.at(handle).lease != absl::InfiniteDuration();
  });
  std::stable_sort(handles.begin(), handles.end(),
                   [this](const std::string& a, const std::string& b) ABSL_EXCLUSIVE_LOCKS_REQUIRED(
                       mutex_) { return entries_.at(a).last_used < entries_.at(b).last_used; });
  return handles;
}

int Registry::EvictLocked(const std::vector<std::string>& handles) {
  for (const std::string& handle : handles) {
    Entry& entry = entries_.at(handle);
    entry.state = State::kStored;
    entry.is_stored = true;
    entry.component = nullptr;
  }
  if (!handles.empty()) malloc_trim(0);
  return static_cast<int>(handles.size());
}

int Registry::EvictIdle(const std::set<std::string>& keep) {
  absl::MutexLock lock(&mutex_);
  return EvictLocked(IdleHandles(keep));
}

void Registry::EvictDamaged(const std::string& base_handle) {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> damaged;
  for (const auto& [handle, entry] : entries_) {
    const auto component = WithHandle(base_handle, entry.component);
    if (entry.state != State::kReady || component == nullptr) continue;
    const absl::Status status = CheckFile(*component);
    if (status.ok()) continue;
    for (const CancelTokenPtr& user : entry.users) user->Cancel(status);
    damaged.push_back(handle);
  }
  EvictLocked(damaged);
  const auto are_unused = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::all_of(damaged.begin(), damaged.end(),
                       [&](const std::string& handle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                         const auto found = entries_.find(handle);
                         return found == entries_.end() || found->second.users.empty();
                       });
  };
  mutex_.Await(absl::Condition(&are_unused));
}

int Registry::Evict(const BytesByDevice& lacking, const std::set<std::string>& keep) {
  absl::MutexLock lock(&mutex_);
  const std::vector<std::string> evictable = EvictableHandles(keep);
  const auto suffices =
      [&](const std::vector<std::string>& evicted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        const BytesByDevice freed = BytesFreedBy(evicted);
        return std::all_of(lacking.begin(), lacking.end(), [&](const auto& lack) {
          const auto found = freed.find(lack.first);
          return lack.second <= (found == freed.end() ? 0 : found->second);
        });
      };
  return EvictLocked(FewestOldest(evictable, suffices));
}

std::vector<std::string> Registry::HandlesMatching(bool (*matches)(const Entry&)) const {
  std::vector<std::string> handles;
  for (const auto& [handle, entry] : entries_) {
    if (matches(entry)) handles.push_back(handle);
  }
  return handles;
}

std::vector<std::string> Registry::IdleHandles(const std::set<std::string>& keep) const {
  std::vector<std::string> handles = HandlesMatching([](const Entry& e) {
    return e.state == State::kReady && e.users.empty() && e.hold.expired();
  });
  std::erase_if(handles, [&](const std::string& handle) { return keep.contains(handle); });
  return handles;
}

std::string_view Registry::StateName(State state) {
  switch (state) {
    case State::kStored:
      return "STORED";
    case State::kLoading:
      return "LOADING";
    case State::kReady:
      return "READY";
    case State::kUnloading:
      return "UNLOADING";
  }
  return "";
}

std::vector<ModelInfo> Registry::List() const {
  absl::MutexLock lock(&mutex_);
  std::vector<ModelInfo> models;
  Holdings listed;
  const auto add_bytes = [&listed](const LoadedComponent* component, ModelInfo* info) {
    for (const auto& holding : AddHoldings(component, &listed)) {
      for (const DeviceBytes& device : holding->devices)
        info->unshared_bytes[device.device] += device.measured_bytes;
    }
  };
  for (const auto& [handle, entry] : entries_) {
    ModelInfo info;
    info.handle = handle;
    info.kind = ComponentKindName(entry.kind);
    info.ckpt_name = entry.ckpt_name;
    info.family = entry.family;
    info.state = StateName(entry.state);
    info.in_use = entry.state == State::kLoading ? 0 : static_cast<int>(entry.users.size());
    if (entry.component != nullptr) {
      info.devices = AllDevices(*entry.component);
      add_bytes(entry.component.get(), &info);
    }
    for (const auto& adapted : entry.adapted) add_bytes(adapted.lock().get(), &info);
    models.push_back(std::move(info));
  }
  return models;
}

}  // namespace distorch
