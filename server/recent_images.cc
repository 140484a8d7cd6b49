#include "server/recent_images.h"

namespace distorch {

void RecentImages::Add(const InferResult& result) {
  if (count_ == 0) return;
  absl::MutexLock lock(&mutex_);
  for (const std::string& data : result.png) {
    images_.push_front({++last_number_, result.seed, data});
    if (images_.size() > count_) images_.pop_back();
  }
}

std::vector<RecentImages::Image> RecentImages::List() const {
  absl::MutexLock lock(&mutex_);
  std::vector<Image> list;
  for (const Image& image : images_) list.push_back({image.number, image.seed, ""});
  return list;
}

std::optional<RecentImages::Image> RecentImages::Find(int64_t number) const {
  absl::MutexLock lock(&mutex_);
  for (const Image& image : images_) {
    if (image.number == number) return image;
  }
  return std::nullopt;
}

}  // namespace distorch
