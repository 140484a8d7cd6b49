// DisTorch2 allocation: the node's fields and expert strings, parsed and checked
// (reference-semantics: "Allocation strings"). Pure; knows devices only as a table of names and
// sizes.
#ifndef LIB_DISTORCH_ALLOCATION_H_
#define LIB_DISTORCH_ALLOCATION_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/device/device_id.h"

namespace distorch {

enum class AllocationMode { kVirtualVram, kBytes, kRatio, kFraction };

// "virtual VRAM", "bytes", "ratio", "fraction".
std::string_view AllocationModeName(AllocationMode mode);

// The fields of one component, as the user gave them. `field_prefix` ("unet" or "clip") is only for
// messages, which name fields in full: unet_compute_device, unet_virtual_vram_gb,
// unet_donor_device, unet_expert_mode_allocations.
struct AllocationFields {
  std::string field_prefix = "unet";
  std::string compute_device;
  double virtual_vram_gb = 0;
  std::string donor_device = "cpu";  // several separated by ','
  std::string expert_mode_allocations;
};

// One "device,amount" piece, or for kVirtualVram one donor (amount and wildcard unused).
struct AllocationEntry {
  DeviceId device;
  double amount = 0;  // kBytes: bytes; kRatio: share; kFraction: share of the device's total memory
  bool wildcard = false;  // kBytes: takes the rest
};

struct Allocation {
  AllocationMode mode = AllocationMode::kVirtualVram;
  DeviceId compute_device;
  int64_t virtual_vram_bytes = 0;
  std::vector<AllocationEntry> entries;  // in the order written
};

// The devices of a process as ParseAllocation and MakePlan take them: those that have memory, and
// disk, which has room for everything.
std::vector<DeviceMemory> WithDisk(std::vector<DeviceMemory> devices);
std::vector<DeviceId> WithDisk(std::vector<DeviceId> devices);

// Checks every field against `devices` (all devices of the process, with their totals).
// INVALID_ARGUMENT names the field, the offending piece and what is allowed: an unknown device
// (with the known ones), a malformed, negative, non-finite or overflowing amount, a device named
// twice, amounts of mixed kinds, two wildcards, shares that are all zero, a fraction above 1, bytes
// above the device's total, virtual_vram_gb outside 0…128, a fraction of disk, disk to compute on.
//
// Grammar of an expert string, "device,amount;device,amount". Spaces around devices, amounts and
// units are ignored, and so are the case of a unit and one ';' at the end. An amount of bytes has a
// unit that ParseByteSize knows; "*" or "5gb*" is the wildcard, whose number is checked and
// ignored. Shares ("8%") need not add up to 100. The last character of each amount tells its kind:
// device names play no part in it.
//
// Virtual VRAM may be more than the model or the donors hold. The donors are checked even when an
// expert string overrides them, but may be empty when nothing needs them. The compute device may be
// among the donors: it then keeps what it donates to itself.
absl::StatusOr<Allocation> ParseAllocation(const AllocationFields& fields,
                                           const std::vector<DeviceMemory>& devices);

// The reference's one-line form of the same: "EXPERT#COMPUTE;VVRAM_GB;DONORS".
std::string FormatAllocation(const AllocationFields& fields);

}  // namespace distorch

#endif  // LIB_DISTORCH_ALLOCATION_H_
