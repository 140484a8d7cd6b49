// The ledger: who holds which bytes on which device. Loads reserve before they allocate, and so do
// the phases of requests for their activations: what cannot fit is refused with a table instead of
// failing half-way.
#ifndef LIB_DISTORCH_LEDGER_H_
#define LIB_DISTORCH_LEDGER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/device/device_id.h"

namespace distorch {

using BytesByDevice = std::map<DeviceId, int64_t>;

class Ledger;

// Move-only hold on bytes; gives them back when destroyed. The ledger must outlive it. Thread-safe
// but for moves and destruction; every call on a released, moved-from or default one does nothing.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();

  // Turns what is reserved into what is held: `measured` bytes that now really exist.
  void Commit(const BytesByDevice& measured);
  // Gives everything back now.
  void Release();
  BytesByDevice bytes() const;  // what is reserved, or after Commit held

 private:
  friend class Ledger;
  Reservation(Ledger* ledger, uint64_t id) : ledger_(ledger), id_(id) {}
  Ledger* ledger_ = nullptr;
  uint64_t id_ = 0;
};

// Thread-safe.
class Ledger {
 public:
  // What a reservation is for. Activations are never committed: they come and go while a phase of a
  // request runs, which holds what they may need.
  enum class Kind { kWeights, kStaging, kActivations };

  // What one device's bytes are: weights and staging are committed, reserved are promised to loads
  // under way, activations to phases of requests.
  struct DeviceUse {
    int64_t weights_bytes = 0;
    int64_t reserved_bytes = 0;
    int64_t staging_bytes = 0;
    int64_t activation_bytes = 0;

    int64_t held_bytes() const { return weights_bytes + staging_bytes; }
    int64_t promised_bytes() const { return reserved_bytes + activation_bytes; }
  };

  // Bytes of a device that this process has allocated now; nullopt: it cannot tell.
  using Allocated = std::function<std::optional<int64_t>(const DeviceId&)>;

  // `devices` with the bytes each may hold. `allocated` is called under the ledger's mutex.
  explicit Ledger(std::vector<DeviceMemory> devices, Allocated allocated = nullptr);

  // All or nothing. `free_now` is what each device reports as free at this moment (memory of other
  // processes counts too); a device missing from it counts as free but for what the ledger knows. A
  // device is refused when its free memory less what is promised, and not allocated yet, does not
  // hold `need`, or when the ledger's sum would pass what it may hold. Where a device cannot tell
  // what is allocated, phases are taken to have allocated all that they hold and loads under way
  // nothing: what these have counts twice until they commit, and the check errs towards refusing.
  // RESOURCE_EXHAUSTED says for each device that does not fit what is needed, what is free, and who
  // holds what, as a table. INVALID_ARGUMENT for an unknown device or a negative need. `holder` is
  // a name for that table.
  absl::StatusOr<Reservation> Reserve(std::string holder, const BytesByDevice& need,
                                      const BytesByDevice& free_now, Kind kind = Kind::kWeights)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The same check without reserving; OK or the same error.
  absl::Status Check(const BytesByDevice& need, const BytesByDevice& free_now) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // By device, what must become free for `need`, of devices the ledger knows; empty where Check is
  // OK.
  BytesByDevice Lacking(const BytesByDevice& need, const BytesByDevice& free_now) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Grows whenever anybody reserves, commits or gives back: anywhere, or on `device`.
  uint64_t changes() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t changes_on(const DeviceId& device) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Until changes() is not `seen` any more, `stop` is requested or `deadline` is there.
  void AwaitChange(uint64_t seen, absl::Time deadline, const std::stop_token& stop) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Who holds what of `device`, which it knows: "12.00 GiB flux.safetensors, …", largest first.
  std::string HoldersOf(const DeviceId& device, const BytesByDevice& free_now) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  std::map<DeviceId, DeviceUse> Use() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class Reservation;
  struct Entry {
    std::string holder;
    BytesByDevice bytes;
    Kind kind = Kind::kWeights;
    bool committed = false;
  };
  // What the ledger knows of one device.
  struct DeviceState {
    DeviceUse use;
    int64_t free_bytes = 0;     // now
    int64_t pending_bytes = 0;  // of these, promised and not allocated yet
    int64_t taken_bytes = 0;    // promised and allocated
  };

  void Commit(uint64_t id, const BytesByDevice& measured) ABSL_LOCKS_EXCLUDED(mutex_);
  void Release(uint64_t id) ABSL_LOCKS_EXCLUDED(mutex_);
  BytesByDevice Bytes(uint64_t id) const ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Status CheckLocked(const BytesByDevice& need, const BytesByDevice& free_now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  DeviceState State(const DeviceMemory& device, const BytesByDevice& free_now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // "12.00 GiB flux.safetensors, 1.00 GiB sdxl.safetensors (loading), …", largest first.
  std::string Holders(const DeviceMemory& device, const DeviceState& state) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void CountChange(const BytesByDevice& bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<DeviceMemory> devices_;
  const Allocated allocated_;
  mutable absl::Mutex mutex_;
  uint64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<DeviceId, uint64_t> changes_on_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace distorch

#endif  // LIB_DISTORCH_LEDGER_H_
