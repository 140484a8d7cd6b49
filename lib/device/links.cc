#include "lib/device/links.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

constexpr double kMaxBytesPerSecond = 1e15;
constexpr absl::Duration kMaxLatency = absl::Seconds(10);

absl::StatusOr<double> ParseRate(std::string_view text) {
  const auto wrong = [text] {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(text),
                     " is not a rate such as 12GB/s (B/s to TB/s, or KiB/s to TiB/s; "
                     "above 0, at most 1000 TB/s)"));
  };
  const size_t digits = std::min(text.find_first_not_of("0123456789.eE+"), text.size());
  double rate = 0;
  if (!absl::SimpleAtod(text.substr(0, digits), &rate)) return wrong();
  std::string unit = absl::AsciiStrToLower(absl::StripLeadingAsciiWhitespace(text.substr(digits)));
  if (!unit.ends_with("b/s")) return wrong();
  unit.resize(unit.size() - 3);
  const double base = unit.ends_with('i') ? 1024 : 1000;
  if (unit.ends_with('i')) unit.pop_back();
  constexpr std::string_view kPrefixes = "kmgt";
  if (!unit.empty()) {
    const size_t power = kPrefixes.find(unit);
    if (unit.size() != 1 || power == std::string_view::npos) return wrong();
    rate *= std::pow(base, static_cast<double>(power) + 1);
  } else if (base == 1024) {
    return wrong();
  }
  if (!(rate > 0 && rate <= kMaxBytesPerSecond)) return wrong();
  return rate;
}

absl::StatusOr<double> ParseLatency(std::string_view text) {
  absl::Duration latency;
  if (!absl::ParseDuration(text, &latency) || latency < absl::ZeroDuration() ||
      latency > kMaxLatency) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(text), " is not a latency such as 20us (0s to 10s)"));
  }
  return absl::ToDoubleSeconds(latency);
}

absl::StatusOr<DeviceId> ParseEnd(std::string_view text, const std::vector<DeviceId>& devices) {
  const absl::StatusOr<DeviceId> device = ParseDeviceId(absl::StripAsciiWhitespace(text));
  const bool known = device.ok() && (device->is_disk() || std::find(devices.begin(), devices.end(),
                                                                    *device) != devices.end());
  if (known) return device;
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown device ", Quoted(text), "; known devices: ",
      absl::StrJoin(devices, ", ",
                    [](std::string* out, const DeviceId& id) { out->append(id.ToString()); }),
      ", disk"));
}

absl::Status AddLink(std::string_view piece, const std::vector<DeviceId>& devices,
                     LinkTable* links) {
  const std::vector<std::string_view> sides = absl::StrSplit(piece, absl::MaxSplits('=', 1));
  if (sides.size() != 2)
    return absl::InvalidArgumentError(
        "expected A-B=RATE[,LATENCY], such as cuda:0-cpu=12GB/s,20us");
  const bool one_way = sides[0].find("->") != std::string_view::npos;
  const std::vector<std::string_view> ends =
      absl::StrSplit(sides[0], absl::MaxSplits(one_way ? "->" : "-", 1));
  if (ends.size() != 2)
    return absl::InvalidArgumentError("expected two devices, as A-B or A->B, before the '='");
  ASSIGN_OR_RETURN(const DeviceId from, ParseEnd(ends[0], devices));
  ASSIGN_OR_RETURN(const DeviceId to, ParseEnd(ends[1], devices));
  if (from == to) return absl::InvalidArgumentError("a device needs no link to itself");

  const std::vector<std::string_view> amounts = absl::StrSplit(sides[1], absl::MaxSplits(',', 1));
  LinkSpeed speed;
  ASSIGN_OR_RETURN(speed.bytes_per_second, ParseRate(absl::StripAsciiWhitespace(amounts[0])));
  if (amounts.size() == 2) {
    ASSIGN_OR_RETURN(speed.latency_seconds, ParseLatency(absl::StripAsciiWhitespace(amounts[1])));
  }
  if (links->Find(from, to) != nullptr || (!one_way && links->Find(to, from) != nullptr))
    return absl::InvalidArgumentError("the link has a speed already");
  links->Set(from, to, speed);
  if (!one_way) links->Set(to, from, speed);
  return absl::OkStatus();
}

}  // namespace

void LinkTable::Set(const DeviceId& from, const DeviceId& to, LinkSpeed speed) {
  entries_.insert_or_assign({from, to}, speed);
}

const LinkSpeed* LinkTable::Find(const DeviceId& from, const DeviceId& to) const {
  const auto entry = entries_.find({from, to});
  return entry == entries_.end() ? nullptr : &entry->second;
}

double LinkTable::Seconds(const DeviceId& from, const DeviceId& to, int64_t bytes) const {
  if (from == to) return 0;
  const LinkSpeed* speed = Find(from, to);
  return speed == nullptr ? 0 : speed->Seconds(bytes);
}

absl::StatusOr<LinkTable> ParseLinks(std::string_view text, const std::vector<DeviceId>& devices) {
  LinkTable links;
  for (const std::string_view whole : absl::StrSplit(text, ';', absl::SkipWhitespace())) {
    const std::string_view piece = absl::StripAsciiWhitespace(whole);
    const absl::Status status = AddLink(piece, devices, &links);
    if (!status.ok())
      return absl::InvalidArgumentError(absl::StrCat(Quoted(piece), ": ", status.message()));
  }
  return links;
}

}  // namespace distorch
