// What phases of requests need for their activations: measured where the same has run before, else
// scaled from the nearest that has, else what was counted from the model's shapes. Pure.
#ifndef LIB_SERVING_ACTIVATION_ESTIMATES_H_
#define LIB_SERVING_ACTIVATION_ESTIMATES_H_

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "lib/device/device_id.h"
#include "lib/distorch/ledger.h"

namespace distorch {

// Runs with equal keys need the same.
struct ActivationKey {
  std::string family, phase;
  std::string model;   // what is loaded, and how it is placed
  std::string detail;  // of the request, what else is kept on the device: "euler, previews"
  int64_t width = 0, height = 0, batch = 1, context = 0;
  int64_t element_bytes = 4;

  friend bool operator==(const ActivationKey&, const ActivationKey&) = default;
};

// Bytes on one device.
struct ActivationNeed {
  int64_t at_least = 0;  // with less it cannot run
  int64_t expected = 0;  // at_least or more

  friend bool operator==(const ActivationNeed&, const ActivationNeed&) = default;
};
using ActivationNeeds = std::map<DeviceId, ActivationNeed>;

// Thread-safe. Remembers a bounded number of keys, those used last.
class ActivationEstimates {
 public:
  // What `key` needs on the devices of `counted`, which is what is known of it before anything was
  // measured. Where it has run: of its runs, the least and the most. Where a run of the family's
  // same phase was measured on the device: `counted`, corrected by as much as that was off; runs of
  // the same model, then those of a similar count are preferred.
  ActivationNeeds Of(const ActivationKey& key, const ActivationNeeds& counted) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // A run took `peaks`; devices that were not measured are missing from it.
  void Learn(const ActivationKey& key, const ActivationNeeds& counted, const BytesByDevice& peaks)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // A run for which `held` was held found no memory when it had asked for `asked`: on the devices
  // of that, it needs as much at least, and is expected to need more than it had.
  void LearnFailure(const ActivationKey& key, const ActivationNeeds& counted,
                    const BytesByDevice& held, const BytesByDevice& asked)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // Of one key on one device.
  struct Known {
    int64_t counted = 0;
    int64_t least = 0, most = 0;  // measured; 0: nothing was
    int64_t at_least = 0;         // of failures
    int64_t more_than = 0;        // the same
  };
  struct Record {
    ActivationKey key;
    std::map<DeviceId, Known> devices;
    uint64_t used = 0;
  };

  const Record* Find(const ActivationKey& key) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Record& FindOrMake(const ActivationKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What `counted` on `device` is to be multiplied by.
  double Correction(const ActivationKey& key, const DeviceId& device, int64_t counted) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::vector<Record> records_ ABSL_GUARDED_BY(mutex_);
  uint64_t uses_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace distorch

#endif  // LIB_SERVING_ACTIVATION_ESTIMATES_H_
