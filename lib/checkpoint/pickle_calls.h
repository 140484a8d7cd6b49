// The calls that a pickle of torch.save makes, answered without calling anything. Part of
// pickle.cc.
#ifndef LIB_CHECKPOINT_PICKLE_CALLS_H_
#define LIB_CHECKPOINT_PICKLE_CALLS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "lib/checkpoint/pickle.h"

namespace distorch {

// What calling the value `callable` with the tuple `arguments` gives. INVALID_ARGUMENT, naming it,
// when it is not one of the names that are allowed. Both are indices of `pickle`'s values; tensors
// are added to its list.
absl::StatusOr<PickleValue> CallGlobal(uint32_t callable, uint32_t arguments, Pickle* pickle);

// The storage that the persistent id, the tuple `id`, stands for; added to `pickle`'s list.
absl::StatusOr<PickleValue> StorageOfPersistentId(uint32_t id, Pickle* pickle);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_PICKLE_CALLS_H_
