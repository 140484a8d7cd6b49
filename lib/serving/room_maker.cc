#include "lib/serving/room_maker.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/torch_status.h"

namespace distorch {

BytesByDevice FreeBytes(const DeviceManager& devices) {
  BytesByDevice free;
  for (const DeviceSnapshot& device : devices.Snapshot()) free[device.device] = device.free_bytes;
  return free;
}

absl::Status RoomMaker::MakeRoom(const BytesByDevice& need,
                                 const std::set<std::string>& keep) const {
  if (ledger_->Check(need, FreeBytes(devices_)).ok()) return absl::OkStatus();
  streamer_->DropRings();
  const BytesByDevice lacking = ledger_->Lacking(need, FreeBytes(devices_));
  if (evicts_ && !lacking.empty()) registry_->Evict(lacking, keep);
  return ledger_->Check(need, FreeBytes(devices_));
}

bool RoomMaker::FreeSomething(const std::vector<DeviceId>& devices) const {
  const BytesByDevice rings = streamer_->RingBytes();
  const bool has_ring =
      std::ranges::any_of(devices, [&](const DeviceId& device) { return rings.contains(device); });
  if (has_ring) {
    streamer_->DropRings();
    return true;
  }
  return evicts_ && std::ranges::any_of(devices, [this](const DeviceId& device) {
           return registry_->Evict({{device, 1}}, {}) > 0;
         });
}

absl::Status RoomMaker::RunWithRoom(const std::vector<DeviceId>& devices,
                                    absl::FunctionRef<absl::Status()> work) const {
  bool made_room = false;
  absl::Status status = RunTorch(work);
  while (absl::IsResourceExhausted(status) && FreeSomething(devices)) {
    made_room = true;
    status = RunTorch(work);
  }
  if (made_room) FitRings();
  if (!absl::IsResourceExhausted(status)) return status;
  const BytesByDevice free_now = FreeBytes(devices_);
  std::string message =
      absl::StrCat("not enough memory to compute this: ", std::string(status.message()));
  for (const DeviceId& device : devices) {
    absl::StrAppend(&message, "; ", device.ToString(), " is held by ",
                    ledger_->HoldersOf(device, free_now));
  }
  return absl::ResourceExhaustedError(message);
}

}  // namespace distorch
