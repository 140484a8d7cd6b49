#include "lib/device/host_info.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <set>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace distorch {
namespace {

namespace fs = std::filesystem;

// The text after `key` and separators on the first line of `file` that starts with it.
std::optional<std::string> FindLine(const fs::path& file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const size_t start = line.find_first_not_of(": \t", key.size());
    return start == std::string::npos ? "" : line.substr(start);
  }
  return std::nullopt;
}

// The number that `text` starts with. "max", a control group's "no limit", has none.
std::optional<int64_t> LeadingNumber(const std::optional<std::string>& text) {
  int64_t number = 0;
  if (!text || !absl::SimpleAtoi(text->substr(0, text->find(' ')), &number)) return std::nullopt;
  return number;
}

int64_t MemInfoBytes(const fs::path& root, const std::string& key) {
  return LeadingNumber(FindLine(root / "proc/meminfo", key)).value_or(0) * 1024;
}

// The names under which the two versions of control groups publish the same thing.
struct GroupFiles {
  const char* limit;
  const char* usage;
  const char* inactive_file;
};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                  "total_inactive_file"};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};

void LimitByGroup(const fs::path& folder, const GroupFiles& files, HostMemory& memory) {
  const std::optional<int64_t> limit = LeadingNumber(FindLine(folder / files.limit, ""));
  if (!limit) return;
  memory.total_bytes = std::min(memory.total_bytes, *limit);
  const int64_t usage = LeadingNumber(FindLine(folder / files.usage, "")).value_or(0);
  const int64_t reclaimable =
      LeadingNumber(FindLine(folder / "memory.stat", files.inactive_file)).value_or(0);
  const int64_t available = *limit - std::max<int64_t>(usage - reclaimable, 0);
  memory.available_bytes = std::min(memory.available_bytes, std::max<int64_t>(available, 0));
}

// A group is bound by the limits of those it lies in as well.
void LimitByGroupAndParents(const fs::path& mount, const std::string& group,
                            const GroupFiles& files, HostMemory& memory) {
  fs::path folder = mount;
  LimitByGroup(folder, files, memory);
  const std::vector<std::string> parts = absl::StrSplit(group, '/', absl::SkipEmpty());
  for (const std::string& part : parts) {
    folder /= part;
    LimitByGroup(folder, files, memory);
  }
}

}  // namespace

HostMemory ReadHostMemory(const fs::path& root) {
  HostMemory memory = {.total_bytes = MemInfoBytes(root, "MemTotal"),
                       .available_bytes = MemInfoBytes(root, "MemAvailable")};
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // hierarchy-ID:controllers:path; version 2 has no controllers.
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    if (fields[1].empty()) {
      LimitByGroupAndParents(root / "sys/fs/cgroup", fields[2], kVersion2, memory);
    } else if (fields[1] == "memory") {
      LimitByGroupAndParents(root / "sys/fs/cgroup/memory", fields[2], kVersion1, memory);
    }
  }
  return memory;
}

HostProcessor ReadHostProcessor(const fs::path& root) {
  HostProcessor processor;
  const fs::path file = root / "proc/cpuinfo";
  if (const auto model = FindLine(file, "model name"); model && !model->empty()) {
    processor.model = *model;
  }
  const std::set<std::string> flags = absl::StrSplit(FindLine(file, "flags").value_or(""), ' ');
  processor.has_bfloat16 = flags.contains("avx512_bf16") || flags.contains("amx_bf16");
  return processor;
}

}  // namespace distorch
