#include "lib/distorch/allocation.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

constexpr double kMaxVirtualVramGb = 128;
constexpr double kBytesPerGb = 1024.0 * 1024.0 * 1024.0;
constexpr std::string_view kAmountHelp =
    "allowed are bytes with a unit (2.5gb, 500mb, 64k, 1000b) or *, shares (70%), and fractions of "
    "the device's memory "
    "(0.25), one kind in the whole string";

struct Amount {
  AllocationMode kind;
  double value = 0;
  bool wildcard = false;
};

// Whether `text` ended with `suffix`, which is then taken off.
bool TakeSuffix(std::string_view& text, char suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(1);
  return true;
}

absl::StatusOr<DeviceMemory> ParseKnownDevice(std::string_view text,
                                              const std::vector<DeviceMemory>& devices) {
  ASSIGN_OR_RETURN(const DeviceId id, ParseDeviceId(text));
  for (const DeviceMemory& known : devices) {
    if (known.device == id) return known;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown device ", Quoted(text), "; known devices: ",
                   absl::StrJoin(devices, ", ", [](std::string* out, const DeviceMemory& known) {
                     out->append(known.device.ToString());
                   })));
}

absl::StatusOr<double> ParseNumber(std::string_view text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed_to, error] =
      std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error == std::errc::result_out_of_range) {
    return absl::InvalidArgumentError(absl::StrCat("amount ", Quoted(text), " is too large"));
  }
  // from_chars also reads "inf" and "nan".
  if (error != std::errc() || parsed_to != end || !std::isfinite(value)) {
    return absl::InvalidArgumentError(
        absl::StrCat("amount ", Quoted(text), " is malformed; ", kAmountHelp));
  }
  if (std::signbit(value)) {
    return absl::InvalidArgumentError(absl::StrCat("amount ", Quoted(text), " is negative"));
  }
  return value;
}

// The kind of an amount is told by its last character alone, so that no letter in a device's name
// can change it.
absl::StatusOr<Amount> ParseAmount(std::string_view text) {
  if (TakeSuffix(text, '*')) {
    if (!text.empty()) RETURN_IF_ERROR(ParseByteSize(text).status());
    return Amount{.kind = AllocationMode::kBytes, .wildcard = true};
  }
  if (TakeSuffix(text, '%')) {
    ASSIGN_OR_RETURN(const double share, ParseNumber(absl::StripTrailingAsciiWhitespace(text)));
    return Amount{.kind = AllocationMode::kRatio, .value = share};
  }
  if (!text.empty() && absl::ascii_isalpha(text.back())) {
    ASSIGN_OR_RETURN(const int64_t bytes, ParseByteSize(text));
    return Amount{.kind = AllocationMode::kBytes, .value = static_cast<double>(bytes)};
  }
  ASSIGN_OR_RETURN(const double fraction, ParseNumber(text));
  return Amount{.kind = AllocationMode::kFraction, .value = fraction};
}

absl::Status CheckAmount(const Amount& amount, const DeviceMemory& device) {
  if (amount.kind == AllocationMode::kFraction && device.device.is_disk()) {
    return absl::InvalidArgumentError(
        "a fraction of the device's memory: disk has none; write bytes, a share of the model (30%) "
        "or *");
  }
  if (amount.kind == AllocationMode::kFraction && amount.value > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("fraction ", amount.value,
                     " is above 1: a plain number is a share of the device's memory from 0 to "
                     "1; write ",
                     amount.value, "% for a share of the model"));
  }
  if (amount.kind == AllocationMode::kBytes &&
      amount.value > static_cast<double>(device.total_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(FormatBytes(static_cast<int64_t>(amount.value)), " is more than ",
                     device.device.ToString(), " has in all, ", FormatBytes(device.total_bytes)));
  }
  return absl::OkStatus();
}

bool Names(const std::vector<AllocationEntry>& entries, const DeviceId& device) {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const AllocationEntry& entry) { return entry.device == device; });
}

// Parses "device,amount" and appends it to `allocation`, whose mode the first piece sets.
absl::Status AddPiece(std::string_view piece, const std::vector<DeviceMemory>& devices,
                      Allocation& allocation) {
  const std::vector<std::string_view> parts = absl::StrSplit(piece, absl::MaxSplits(',', 1));
  if (parts.size() != 2) {
    return absl::InvalidArgumentError("write device,amount, such as cuda:0,2.5gb");
  }
  ASSIGN_OR_RETURN(const DeviceMemory device,
                   ParseKnownDevice(absl::StripAsciiWhitespace(parts[0]), devices));
  ASSIGN_OR_RETURN(const Amount amount, ParseAmount(absl::StripAsciiWhitespace(parts[1])));
  RETURN_IF_ERROR(CheckAmount(amount, device));

  std::vector<AllocationEntry>& entries = allocation.entries;
  if (entries.empty()) allocation.mode = amount.kind;
  if (amount.kind != allocation.mode) {
    return absl::InvalidArgumentError(absl::StrCat(
        "amount of another kind (", AllocationModeName(amount.kind), ") than the pieces before (",
        AllocationModeName(allocation.mode), "); ", kAmountHelp));
  }
  if (Names(entries, device.device)) {
    return absl::InvalidArgumentError(
        absl::StrCat("device ", device.device.ToString(), " is named twice"));
  }
  if (amount.wildcard && std::any_of(entries.begin(), entries.end(),
                                     [](const AllocationEntry& entry) { return entry.wildcard; })) {
    return absl::InvalidArgumentError("second wildcard *; only one device can take the rest");
  }
  entries.push_back({.device = device.device, .amount = amount.value, .wildcard = amount.wildcard});
  return absl::OkStatus();
}

absl::Status CheckShares(const Allocation& allocation) {
  if (allocation.mode == AllocationMode::kBytes) return absl::OkStatus();
  double sum = 0;
  for (const AllocationEntry& entry : allocation.entries) sum += entry.amount;
  if (sum == 0)
    return absl::InvalidArgumentError("all shares are zero; at least one must be above zero");
  if (!std::isfinite(sum)) return absl::InvalidArgumentError("the sum of the shares is too large");
  return absl::OkStatus();
}

absl::Status ParseExpert(std::string_view text, const std::vector<DeviceMemory>& devices,
                         Allocation& allocation) {
  text = absl::StripAsciiWhitespace(text);
  TakeSuffix(text, ';');
  int number = 0;
  for (std::string_view piece : absl::StrSplit(text, ';')) {
    ++number;
    piece = absl::StripAsciiWhitespace(piece);
    if (const absl::Status status = AddPiece(piece, devices, allocation); !status.ok()) {
      return Within(absl::StrCat("piece ", number, " ", Quoted(piece)), status);
    }
  }
  if (const absl::Status status = CheckShares(allocation); !status.ok())
    return Within(Quoted(text), status);
  return absl::OkStatus();
}

absl::Status ParseDonors(std::string_view text, const std::vector<DeviceMemory>& devices,
                         std::vector<AllocationEntry>& donors) {
  int number = 0;
  for (std::string_view piece : absl::StrSplit(text, ',')) {
    ++number;
    piece = absl::StripAsciiWhitespace(piece);
    const absl::StatusOr<DeviceMemory> device = ParseKnownDevice(piece, devices);
    absl::Status status = device.status();
    if (status.ok() && Names(donors, device->device)) {
      status = absl::InvalidArgumentError("device is named twice");
    }
    if (!status.ok()) return Within(absl::StrCat("donor ", number, " ", Quoted(piece)), status);
    donors.push_back({.device = device->device});
  }
  return absl::OkStatus();
}

// "4.0", as the reference prints it, not "4".
std::string FormatGb(double gb) {
  std::array<char, 32> buffer;
  const auto printed = std::to_chars(buffer.data(), buffer.data() + buffer.size(), gb);
  std::string text(buffer.data(), printed.ptr);
  if (text.find_first_not_of("0123456789") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

std::string_view AllocationModeName(AllocationMode mode) {
  switch (mode) {
    case AllocationMode::kVirtualVram:
      return "virtual VRAM";
    case AllocationMode::kBytes:
      return "bytes";
    case AllocationMode::kRatio:
      return "ratio";
    case AllocationMode::kFraction:
      return "fraction";
  }
  return "unknown";
}

std::vector<DeviceId> WithDisk(std::vector<DeviceId> devices) {
  devices.push_back(kDisk);
  return devices;
}

std::vector<DeviceMemory> WithDisk(std::vector<DeviceMemory> devices) {
  constexpr int64_t kRoom = int64_t{1} << 52;  // whole numbers that floating point holds
  devices.push_back({kDisk, kRoom});
  return devices;
}

absl::StatusOr<Allocation> ParseAllocation(const AllocationFields& fields,
                                           const std::vector<DeviceMemory>& devices) {
  const auto field = [&](std::string_view name) {
    return absl::StrCat(fields.field_prefix, "_", name);
  };
  Allocation allocation;

  const absl::StatusOr<DeviceMemory> compute =
      ParseKnownDevice(absl::StripAsciiWhitespace(fields.compute_device), devices);
  if (!compute.ok()) return Within(field("compute_device"), compute.status());
  if (compute->device.is_disk()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field("compute_device"), ": disk cannot compute, only donate"));
  }
  allocation.compute_device = compute->device;

  // Written so that NaN fails.
  const double gb = fields.virtual_vram_gb;
  if (!(gb >= 0 && gb <= kMaxVirtualVramGb)) {
    return absl::InvalidArgumentError(absl::StrCat(
        field("virtual_vram_gb"), ": ", gb, " is not between 0 and ", kMaxVirtualVramGb, " (GiB)"));
  }
  const bool expert = !absl::StripAsciiWhitespace(fields.expert_mode_allocations).empty();

  std::vector<AllocationEntry> donors;
  const bool donors_needed = !expert && gb > 0;
  if (donors_needed || !absl::StripAsciiWhitespace(fields.donor_device).empty()) {
    const absl::Status status = ParseDonors(fields.donor_device, devices, donors);
    if (!status.ok()) return Within(field("donor_device"), status);
  }

  if (expert) {
    const absl::Status status = ParseExpert(fields.expert_mode_allocations, devices, allocation);
    if (!status.ok()) return Within(field("expert_mode_allocations"), status);
    return allocation;
  }
  allocation.mode = AllocationMode::kVirtualVram;
  allocation.virtual_vram_bytes = static_cast<int64_t>(gb * kBytesPerGb);
  allocation.entries = std::move(donors);
  return allocation;
}

std::string FormatAllocation(const AllocationFields& fields) {
  return absl::StrCat(fields.expert_mode_allocations, "#", fields.compute_device, ";",
                      FormatGb(fields.virtual_vram_gb), ";", fields.donor_device);
}

}  // namespace distorch
