#include "lib/serving/room_maker.h"

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

bool RoomMaker::FreeSomething(const DeviceId& device) const {
  const BytesByDevice rings = streamer_->RingBytes();
  if (const auto ring = rings.find(device); ring != rings.end() && ring->second > 0) {
    streamer_->DropRings();
    return true;
  }
  return evicts_ && registry_->Evict({{device, 1}}, {}) > 0;
}

absl::Status RoomMaker::RunWithRoom(const DeviceId& device,
                                    absl::AnyInvocable<absl::Status()>& work) const {
  bool made_room = false;
  absl::Status status = RunTorch([&] { return work(); });
  while (absl::IsResourceExhausted(status) && FreeSomething(device)) {
    made_room = true;
    status = RunTorch([&] { return work(); });
  }
  if (made_room) streamer_->FitRings(FreeBytes(devices_));
  if (!absl::IsResourceExhausted(status)) return status;
  return absl::ResourceExhaustedError(
      absl::StrCat("not enough memory to compute this: ", status.message(), "; ", device.ToString(),
                   " is held by ", ledger_->HoldersOf(device, FreeBytes(devices_))));
}

}  // namespace distorch
