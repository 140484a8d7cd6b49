#include "lib/serving/phase_costs.h"

namespace distorch {

void PhaseCosts::Learn(const std::string& key, double units, double seconds) {
  const double rate = seconds / units;
  absl::MutexLock lock(&mutex_);
  const auto [known, is_new] = seconds_per_unit_.try_emplace(key, rate);
  if (!is_new) known->second = (known->second + rate) / 2;
}

std::optional<double> PhaseCosts::Seconds(const std::string& key, double units) const {
  absl::MutexLock lock(&mutex_);
  const auto known = seconds_per_unit_.find(key);
  if (known == seconds_per_unit_.end()) return std::nullopt;
  return known->second * units;
}

}  // namespace distorch
