// Conditionings that EncodeText left for Sample, by id: the least recently used go first.
#ifndef LIB_SERVING_CONDITIONING_CACHE_H_
#define LIB_SERVING_CONDITIONING_CACHE_H_

#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/text/conditioning.h"

namespace distorch {

// Thread-safe.
class ConditioningCache {
 public:
  explicit ConditioningCache(int64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}

  void Put(const std::string& id, text::Conditioning conditioning) ABSL_LOCKS_EXCLUDED(mutex_);
  // NOT_FOUND (naming `field`) when it was never there or had to go.
  absl::StatusOr<text::Conditioning> Get(std::string_view field, const std::string& id)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    std::string id;
    text::Conditioning conditioning;
    int64_t bytes = 0;
  };

  const int64_t capacity_bytes_;
  absl::Mutex mutex_;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // most recently used first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_id_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace distorch

#endif  // LIB_SERVING_CONDITIONING_CACHE_H_
