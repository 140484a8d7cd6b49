#include "lib/serving/conditioning_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

int64_t Bytes(const text::Conditioning& conditioning) {
  int64_t bytes = 0;
  for (const at::Tensor* tensor : {&conditioning.cross_attention, &conditioning.pooled,
                                   &conditioning.attention_mask, &conditioning.concat}) {
    if (tensor->defined()) bytes += static_cast<int64_t>(tensor->nbytes());
  }
  return bytes;
}

}  // namespace

void ConditioningCache::Put(const std::string& id, text::Conditioning conditioning) {
  absl::MutexLock lock(&mutex_);
  if (auto found = by_id_.find(id); found != by_id_.end()) {
    bytes_ -= found->second->bytes;
    entries_.erase(found->second);
  }
  const int64_t bytes = Bytes(conditioning);
  entries_.push_front({id, std::move(conditioning), bytes});
  by_id_[id] = entries_.begin();
  bytes_ += bytes;
  // The newest always stays: its id was just given out.
  while (bytes_ > capacity_bytes_ && entries_.size() > 1) {
    bytes_ -= entries_.back().bytes;
    by_id_.erase(entries_.back().id);
    entries_.pop_back();
  }
}

absl::StatusOr<text::Conditioning> ConditioningCache::Get(std::string_view field,
                                                          const std::string& id) {
  absl::MutexLock lock(&mutex_);
  auto found = by_id_.find(id);
  if (found == by_id_.end()) {
    return absl::NotFoundError(absl::StrCat(field, ": conditioning \"", id,
                                            "\" is not in the server; encode the text again"));
  }
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->conditioning;
}

}  // namespace distorch
