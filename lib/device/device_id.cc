#include "lib/device/device_id.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

absl::Status NotADevice(std::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(
      Quoted(text),
      " is not a device: write cpu, or an accelerator such as cuda or cuda:0 (index 0 to ",
      kMaxDeviceIndex, ")"));
}

absl::Status BadByteSize(std::string_view text, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(
      Quoted(text), " ", what,
      ": write a number and a unit b, kb, mb, gb or tb (powers of 1024), such as 2.5gb"));
}

// The power of two that `unit` stands for: "", "b", "k", "kb", "kib" and so on up to t.
std::optional<int> UnitShift(std::string_view unit) {
  const std::string lower = absl::AsciiStrToLower(unit);
  if (lower.empty() || lower == "b") return 0;
  const size_t power = std::string_view("kmgt").find(lower[0]);
  const std::string_view rest = std::string_view(lower).substr(1);
  if (power == std::string_view::npos || !(rest.empty() || rest == "b" || rest == "ib")) {
    return std::nullopt;
  }
  return 10 * (static_cast<int>(power) + 1);
}

}  // namespace

std::string DeviceId::ToString() const {
  return is_cpu() || is_disk() ? type : absl::StrCat(type, ":", index);
}

std::strong_ordering operator<=>(const DeviceId& a, const DeviceId& b) {
  if (const auto order = a.is_disk() <=> b.is_disk(); order != 0) return order;
  if (const auto order = a.is_cpu() <=> b.is_cpu(); order != 0) return order;
  if (const auto order = a.type <=> b.type; order != 0) return order;
  return a.index <=> b.index;
}

absl::StatusOr<DeviceId> ParseDeviceId(std::string_view text) {
  DeviceId id;
  const size_t colon = text.find(':');
  const std::string_view type = text.substr(0, colon);
  if (type.empty() ||
      type.find_first_not_of("abcdefghijklmnopqrstuvwxyz") != std::string_view::npos) {
    return NotADevice(text);
  }
  id.type = type;
  if (colon == std::string_view::npos) return id;

  const std::string_view index = text.substr(colon + 1);
  const char* const end = index.data() + index.size();
  const auto [parsed_to, error] = std::from_chars(index.data(), end, id.index);
  const bool canonical = index == "0" || !index.starts_with('0');
  if (error != std::errc() || parsed_to != end || !canonical || id.index < 0 ||
      id.index > kMaxDeviceIndex || id.is_cpu() || id.is_disk()) {
    return NotADevice(text);
  }
  return id;
}

absl::StatusOr<int64_t> ParseByteSize(std::string_view text) {
  const std::string_view trimmed = absl::StripAsciiWhitespace(text);
  if (trimmed.starts_with('-')) return BadByteSize(text, "is negative");
  const size_t number_length = std::min(trimmed.find_first_not_of("0123456789."), trimmed.size());
  const std::string_view number = trimmed.substr(0, number_length);
  const char* const end = number.data() + number.size();
  const std::optional<int> shift =
      UnitShift(absl::StripLeadingAsciiWhitespace(trimmed.substr(number_length)));
  if (number.empty() || !shift.has_value()) return BadByteSize(text, "is not an amount of bytes");

  // Whole numbers do not pass through floating point, which holds only 53 bits.
  if (number.find('.') == std::string_view::npos) {
    int64_t value = 0;
    const auto [parsed_to, error] = std::from_chars(number.data(), end, value);
    if (error != std::errc() || value > (std::numeric_limits<int64_t>::max() >> *shift)) {
      return BadByteSize(text, "is too large");
    }
    return value << *shift;
  }
  double value = 0;
  const auto [parsed_to, error] =
      std::from_chars(number.data(), end, value, std::chars_format::fixed);
  if (error == std::errc::invalid_argument || parsed_to != end) {
    return BadByteSize(text, "is not an amount of bytes");
  }
  const double bytes = std::ldexp(value, *shift);
  if (error != std::errc() || bytes >= std::ldexp(1.0, 63))
    return BadByteSize(text, "is too large");
  return static_cast<int64_t>(bytes);
}

std::string FormatBytes(int64_t bytes) {
  double value = std::abs(static_cast<double>(bytes));
  if (value < 1024) return absl::StrCat(bytes, " B");
  std::string_view unit;
  for (const std::string_view larger : {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}) {
    // 1023.995 is what "%.2f" would print as 1024.00.
    if (!unit.empty() && value < 1023.995) break;
    value /= 1024;
    unit = larger;
  }
  return absl::StrFormat("%s%.2f %s", bytes < 0 ? "-" : "", value, unit);
}

}  // namespace distorch
