#include "lib/serving/activation_room.h"

#include <malloc.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/device/memory_peak.h"

namespace distorch {
namespace {

BytesByDevice Bytes(const ActivationNeeds& needs, int64_t ActivationNeed::*which) {
  BytesByDevice bytes;
  for (const auto& [device, need] : needs) bytes[device] = need.*which;
  return bytes;
}

// `needs` less what their devices lack for what is expected, but no less than the least; of a CPU,
// which nothing corrects the estimates of, no more than that: loads go on beside it.
BytesByDevice WhatThereIs(const ActivationNeeds& needs, const BytesByDevice& lacking) {
  BytesByDevice bytes = Bytes(needs, &ActivationNeed::expected);
  for (const auto& [device, missing] : lacking)
    bytes[device] = device.is_cpu() ? needs.at(device).at_least
                                    : std::max(needs.at(device).at_least, bytes[device] - missing);
  return bytes;
}

// Watches the devices on which a phase is alone, as far as they count.
class Watch {
 public:
  Watch(const DeviceManager& devices, const Ledger& ledger, const BytesByDevice& held)
      : ledger_(ledger) {
    const std::map<DeviceId, Ledger::DeviceUse> use = ledger.Use();
    for (const auto& [device, bytes] : held) {
      if (use.at(device).promised_bytes() != bytes) continue;
      seen_.emplace(device,
                    Seen{ledger.changes_on(device), MemoryPeak(devices.TorchDevice(device))});
    }
  }

  // Without those on which anything else began or ended meanwhile.
  BytesByDevice Peaks() const {
    BytesByDevice peaks;
    for (const auto& [device, seen] : seen_) {
      const std::optional<int64_t> bytes = seen.peak.bytes();
      if (bytes && ledger_.changes_on(device) == seen.changes) peaks[device] = *bytes;
    }
    return peaks;
  }

 private:
  struct Seen {
    uint64_t changes;
    MemoryPeak peak;
  };
  const Ledger& ledger_;
  std::map<DeviceId, Seen> seen_;
};

}  // namespace

ActivationNeeds ActivationRoom::Estimate(const PhaseMemory& memory) const {
  ActivationNeeds needs = estimates_.Of(memory.key, memory.counted);
  // The heap keeps what earlier phases have freed on the CPU: so much takes nothing of what is
  // free.
  for (auto& [device, need] : needs) {
    if (!device.is_cpu()) continue;
    const auto kept = static_cast<int64_t>(mallinfo2().fordblks);
    need.at_least = std::max<int64_t>(0, need.at_least - kept);
    need.expected = std::max<int64_t>(0, need.expected - kept);
  }
  return needs;
}

bool ActivationRoom::OthersRunOn(const BytesByDevice& devices) const {
  const std::map<DeviceId, Ledger::DeviceUse> use = ledger_->Use();
  return std::ranges::any_of(
      devices, [&](const auto& entry) { return use.at(entry.first).promised_bytes() > 0; });
}

absl::StatusOr<ActivationRoom::Hold> ActivationRoom::Admit(const PhaseMemory& memory,
                                                           const CancelToken& cancel) const {
  const ActivationNeeds needs = Estimate(memory);
  BytesByDevice wanted = Bytes(needs, &ActivationNeed::expected);
  bool made_room = false;
  const absl::Cleanup fit_rings = [&] {
    if (made_room) room_maker_->FitRings();  // for nothing
  };
  while (true) {
    RETURN_IF_ERROR(cancel.Check());
    const uint64_t seen = ledger_->changes();
    auto reserved =
        ledger_->Reserve(memory.holder, wanted, FreeBytes(devices_), Ledger::Kind::kActivations);
    if (reserved.ok()) return Hold{*std::move(reserved), wanted, std::exchange(made_room, false)};
    if (!absl::IsResourceExhausted(reserved.status())) return reserved.status();

    const BytesByDevice least = Bytes(needs, &ActivationNeed::at_least);
    made_room = made_room || !ledger_->Check(least, FreeBytes(devices_)).ok();
    const absl::Status room = room_maker_->MakeRoom(least, {});
    const BytesByDevice expected = Bytes(needs, &ActivationNeed::expected);
    const BytesByDevice lacking = ledger_->Lacking(expected, FreeBytes(devices_));
    if (ledger_->changes() != seen) {
      wanted = expected;
    } else if (OthersRunOn(lacking)) {
      ledger_->AwaitChange(seen, cancel.deadline(), cancel.stop_token());
      wanted = expected;
    } else if (!room.ok()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("not enough memory to compute this: ", std::string(room.message())));
    } else {
      wanted = WhatThereIs(needs, lacking);
    }
  }
}

void ActivationRoom::Learn(const PhaseMemory& memory, const BytesByDevice& peaks) {
  const ActivationNeeds needs = estimates_.Of(memory.key, memory.counted);
  for (const auto& [device, peak] : peaks) {
    const ActivationNeed& need = needs.at(device);
    observer_->ActivationsMeasured(memory.key.phase, memory.key.family, need.at_least,
                                   need.expected, peak);
  }
  estimates_.Learn(memory.key, memory.counted, peaks);
}

absl::Status ActivationRoom::Measure(const PhaseMemory& memory, const BytesByDevice& held,
                                     absl::FunctionRef<absl::Status()> work) {
  const Watch watch(devices_, *ledger_, held);
  absl::Status status = RunTorch(work);
  if (status.ok()) Learn(memory, watch.Peaks());
  if (absl::IsResourceExhausted(status))
    estimates_.LearnFailure(memory.key, memory.counted, held, watch.Peaks());
  return status;
}

absl::Status ActivationRoom::Run(const PhaseMemory& memory, const CancelToken& cancel,
                                 absl::FunctionRef<absl::Status()> work) {
  if (memory.counted.empty()) return RunTorch(work);
  ASSIGN_OR_RETURN(Hold hold, RunTorchOr<Hold>([&] { return Admit(memory, cancel); }));
  std::vector<DeviceId> devices;
  for (const auto& [device, bytes] : hold.bytes) devices.push_back(device);
  const absl::Status status =
      room_maker_->RunWithRoom(devices, [&] { return Measure(memory, hold.bytes, work); });
  hold.reservation.Release();
  if (hold.made_room) room_maker_->FitRings();
  return status;
}

}  // namespace distorch
