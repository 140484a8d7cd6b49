// What the kernel tells about this machine's memory and processor.
#ifndef LIB_DEVICE_HOST_INFO_H_
#define LIB_DEVICE_HOST_INFO_H_

#include <cstdint>
#include <filesystem>
#include <string>

namespace distorch {

struct HostMemory {
  int64_t total_bytes = 0;
  int64_t available_bytes = 0;
};

// /proc/meminfo's MemTotal and MemAvailable, or less where a control group (v2, or v1's memory
// controller) of this process allows less; its page cache that can be reclaimed counts as
// available. What cannot be read does not limit. `root` is where /proc and /sys are found, for
// tests.
HostMemory ReadHostMemory(const std::filesystem::path& root = "/");

struct HostProcessor {
  std::string model = "CPU";
  // AVX512-BF16 or AMX-BF16: bfloat16 products in hardware.
  bool has_bfloat16 = false;
};

// From /proc/cpuinfo.
HostProcessor ReadHostProcessor(const std::filesystem::path& root = "/");

}  // namespace distorch

#endif  // LIB_DEVICE_HOST_INFO_H_
