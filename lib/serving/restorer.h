// Makes the handles of a daemon before this one work again.
#ifndef LIB_SERVING_RESTORER_H_
#define LIB_SERVING_RESTORER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/serving/loader.h"
#include "lib/serving/lora_applier.h"
#include "lib/serving/registry.h"
#include "lib/serving/stored_handle.h"

namespace distorch {

// What it is given must outlive it. From the loader's thread.
class Restorer {
 public:
  Restorer(Loader* loader, LoraApplier* lora_applier, Registry* registry)
      : loader_(loader), lora_applier_(lora_applier), registry_(registry) {}

  // Loads what the handles need, each checkpoint once, and applies their adapters; those that are
  // READY by now stay as they are. FAILED_PRECONDITION when a file has changed since, or the
  // devices or settings have; the handle is STORED then, as after any other error.
  absl::Status Restore(const std::vector<StoredHandle>& stored, const CancelTokenPtr& cancel,
                       const Loader::Progress& progress);

 private:
  // Takes the handle's steps from its root on; what is made on the way goes to `made`.
  absl::Status Replay(const StoredHandle& stored, const CancelTokenPtr& cancel,
                      std::vector<std::string>* made);

  Loader* const loader_;
  LoraApplier* const lora_applier_;
  Registry* const registry_;
};

// The handle of `clip` that stops at that layer: a further one, STORED or READY as `clip` is, or
// one that is there. Errors of Registry::Acquire and Derive.
absl::StatusOr<std::string> DeriveClipSkip(Registry* registry, const std::string& clip,
                                           int stop_at_layer);

}  // namespace distorch

#endif  // LIB_SERVING_RESTORER_H_
