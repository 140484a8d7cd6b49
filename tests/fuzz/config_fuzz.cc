// Any text as the daemon's --config: an error that names the file or the setting, or options that
// the daemon could start with.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "server/options.h"
#include "tests/fuzz/require.h"

using distorch::Require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const int file = memfd_create("config", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  Require(ftruncate(file, 0) == 0);
  Require(pwrite(file, data, size, 0) == static_cast<ssize_t>(size));
  const auto none = [](const std::string&) { return std::optional<std::string>(); };
  const auto line = distorch::ParseCommandLine({"--config=" + path}, none);
  if (!line.ok()) {
    Require(!line.status().message().empty());
    return 0;
  }
  Require(distorch::ParseHostPort(line->options.listen_address).ok());
  Require(line->options.max_receive_mb > 0);
  Require(line->options.drain_seconds >= 0);
  return 0;
}
