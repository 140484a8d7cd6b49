// The last pictures that were drawn, for the status page.
#ifndef SERVER_RECENT_IMAGES_H_
#define SERVER_RECENT_IMAGES_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "lib/serving/infer_spec.h"

namespace distorch {

// Thread-safe.
class RecentImages {
 public:
  struct Image {
    int64_t number = 0;  // counts all pictures from 1 on
    uint64_t seed = 0;
    std::string data;  // PNG, JPEG or WebP
  };

  // Keeps `count` pictures, in memory; with 0 it does nothing.
  explicit RecentImages(int count) : count_(static_cast<std::size_t>(count)) {}

  void Add(const InferResult& result) ABSL_LOCKS_EXCLUDED(mutex_);
  // The latest first, without data.
  std::vector<Image> List() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<Image> Find(int64_t number) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const std::size_t count_;
  mutable absl::Mutex mutex_;
  int64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Image> images_ ABSL_GUARDED_BY(mutex_);  // the latest first
};

}  // namespace distorch

#endif  // SERVER_RECENT_IMAGES_H_
