// Any text as --link: an error that says which piece is wrong, or links between known devices.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "lib/device/links.h"
#include "tests/fuzz/require.h"

using distorch::DeviceId;
using distorch::Require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<DeviceId> devices = {{"cuda", 0}, {"cuda", 1}, {"cpu", 0}};
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto links = distorch::ParseLinks(text, devices);
  if (!links.ok()) {
    Require(!links.status().message().empty());
    return 0;
  }
  for (const auto& [ends, speed] : links->entries()) {
    Require(!(ends.first == ends.second));
    Require(std::isfinite(speed.bytes_per_second) && speed.bytes_per_second > 0);
    Require(std::isfinite(speed.latency_seconds) && speed.latency_seconds >= 0);
    const double seconds = links->Seconds(ends.first, ends.second, int64_t{1} << 40);
    Require(seconds > 0);
  }
  return 0;
}
