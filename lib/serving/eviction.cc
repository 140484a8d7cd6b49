#include "lib/serving/eviction.h"

#include <cstddef>
#include <utility>

namespace distorch {

std::vector<std::string> FewestOldest(
    const std::vector<std::string>& candidates,
    absl::FunctionRef<bool(const std::vector<std::string>& evicted)> suffices) {
  std::vector<std::string> evicted;
  auto next = candidates.begin();
  while (!suffices(evicted)) {
    if (next == candidates.end()) return {};
    evicted.push_back(*next++);
  }
  // From the one that was used last: the older ones are rather lost.
  for (size_t i = evicted.size(); i-- > 0;) {
    std::vector<std::string> fewer = evicted;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    if (suffices(fewer)) evicted = std::move(fewer);
  }
  return evicted;
}

}  // namespace distorch
