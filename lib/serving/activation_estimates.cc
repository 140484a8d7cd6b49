#include "lib/serving/activation_estimates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace distorch {
namespace {

constexpr size_t kMostRecords = 512;
// By how much more a run is expected to need than what did not suffice for it.
constexpr double kGrowth = 1.25;

int64_t BytesOn(const BytesByDevice& bytes, const DeviceId& device) {
  const auto found = bytes.find(device);
  return found == bytes.end() ? 0 : found->second;
}

int64_t Times(int64_t bytes, double factor) {
  return static_cast<int64_t>(std::ceil(static_cast<double>(bytes) * factor));
}

}  // namespace

ActivationNeeds ActivationEstimates::Of(const ActivationKey& key,
                                        const ActivationNeeds& counted) const {
  absl::MutexLock lock(&mutex_);
  const Record* record = Find(key);
  ActivationNeeds needs;
  for (const auto& [device, count] : counted) {
    Known known;
    if (record != nullptr) {
      if (const auto found = record->devices.find(device); found != record->devices.end())
        known = found->second;
    }
    ActivationNeed& need = needs[device];
    if (known.most > 0) {
      need = {known.least, known.most};
      continue;
    }
    need.at_least = std::max(count.at_least, known.at_least);
    need.expected = std::max({Times(count.expected, Correction(key, device, count.expected)),
                              need.at_least, Times(known.more_than, kGrowth)});
  }
  return needs;
}

void ActivationEstimates::Learn(const ActivationKey& key, const ActivationNeeds& counted,
                                const BytesByDevice& peaks) {
  absl::MutexLock lock(&mutex_);
  Record& record = FindOrMake(key);
  for (const auto& [device, peak] : peaks) {
    const auto count = counted.find(device);
    if (count == counted.end() || peak <= 0) continue;
    Known& known = record.devices[device];
    known.counted = count->second.expected;
    known.least = known.most > 0 ? std::min(known.least, peak) : peak;
    known.most = std::max(known.most, peak);
  }
}

void ActivationEstimates::LearnFailure(const ActivationKey& key, const ActivationNeeds& counted,
                                       const BytesByDevice& held, const BytesByDevice& asked) {
  absl::MutexLock lock(&mutex_);
  Record& record = FindOrMake(key);
  for (const auto& [device, bytes] : asked) {
    const auto count = counted.find(device);
    if (count == counted.end()) continue;
    Known& known = record.devices[device];
    known.counted = count->second.expected;
    // What had run before now needed more: the least is not what it takes any longer.
    if (known.most > 0) {
      known.least = std::max(known.least, bytes);
      known.most = std::max(known.most, bytes);
    }
    known.at_least = std::max(known.at_least, bytes);
    known.more_than = std::max(known.more_than, BytesOn(held, device));
  }
}

const ActivationEstimates::Record* ActivationEstimates::Find(const ActivationKey& key) const {
  const auto found = std::ranges::find(records_, key, &Record::key);
  return found == records_.end() ? nullptr : &*found;
}

ActivationEstimates::Record& ActivationEstimates::FindOrMake(const ActivationKey& key) {
  auto found = std::ranges::find(records_, key, &Record::key);
  if (found == records_.end()) {
    if (records_.size() < kMostRecords) {
      found = records_.insert(records_.end(), Record());
    } else {
      found = std::ranges::min_element(records_, {}, &Record::used);
      *found = Record();
    }
    found->key = key;
  }
  found->used = ++uses_;
  return *found;
}

double ActivationEstimates::Correction(const ActivationKey& key, const DeviceId& device,
                                       int64_t counted) const {
  double factor = 1;
  auto nearest = std::pair(true, std::numeric_limits<double>::infinity());
  for (const Record& record : records_) {
    if (record.key.family != key.family || record.key.phase != key.phase) continue;
    const auto known = record.devices.find(device);
    if (known == record.devices.end() || known->second.most == 0 || known->second.counted == 0)
      continue;
    const double ratio = static_cast<double>(counted) / static_cast<double>(known->second.counted);
    const std::pair distance(record.key.model != key.model, std::abs(std::log(ratio)));
    if (distance >= nearest) continue;
    nearest = distance;
    factor = static_cast<double>(known->second.most) / static_cast<double>(known->second.counted);
  }
  return factor;
}

}  // namespace distorch
