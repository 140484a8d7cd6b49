// Memory for what does not fit: staging gives way first, then idle models.
#ifndef LIB_SERVING_ROOM_MAKER_H_
#define LIB_SERVING_ROOM_MAKER_H_

#include <set>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "lib/device/device_manager.h"
#include "lib/distorch/ledger.h"
#include "lib/distorch/streamer.h"
#include "lib/serving/registry.h"

namespace distorch {

// What each device has free now, as the ledger takes it.
BytesByDevice FreeBytes(const DeviceManager& devices);

// What it is given must outlive it. Thread-safe.
class RoomMaker {
 public:
  // `evicts`: idle models may go (Registry::Evict).
  RoomMaker(const DeviceManager& devices, Ledger* ledger, Streamer* streamer, Registry* registry,
            bool evicts)
      : devices_(devices),
        ledger_(ledger),
        streamer_(streamer),
        registry_(registry),
        evicts_(evicts) {}

  bool evicts() const { return evicts_; }

  // Room for `need` bytes that evicts none of `keep`: OK, or RESOURCE_EXHAUSTED with who holds
  // what. Staging stays dropped until FitRings.
  absl::Status MakeRoom(const BytesByDevice& need, const std::set<std::string>& keep) const;
  // Gives staging what is free now; call it when what MakeRoom was for has ended.
  void FitRings() const { streamer_->FitRings(FreeBytes(devices_)); }

  // Runs `work`, which computes on `devices`, and where memory lacks for that, again, each time
  // with more room, until there is no more to be made: then RESOURCE_EXHAUSTED with who holds what.
  // `work` may be run again from its beginning.
  absl::Status RunWithRoom(const std::vector<DeviceId>& devices,
                           absl::FunctionRef<absl::Status()> work) const;

 private:
  bool FreeSomething(const std::vector<DeviceId>& devices) const;

  const DeviceManager& devices_;
  Ledger* const ledger_;
  Streamer* const streamer_;
  Registry* const registry_;
  const bool evicts_;
};

}  // namespace distorch

#endif  // LIB_SERVING_ROOM_MAKER_H_
