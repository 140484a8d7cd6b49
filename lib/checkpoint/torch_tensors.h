// From the object that torch.save has pickled to tensors: what its two formats have in common
// (torch_archive.h, torch_legacy.h).
#ifndef LIB_CHECKPOINT_TORCH_TENSORS_H_
#define LIB_CHECKPOINT_TORCH_TENSORS_H_

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "lib/checkpoint/byte_source.h"
#include "lib/checkpoint/pickle.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {

// Where a storage's bytes are in the file.
using StorageLocator = absl::FunctionRef<absl::StatusOr<ByteRange>(const PickleStorage& storage)>;

// The tensors of the saved dictionary, of its entry "state_dict" where there is one, or of its only
// entry; those of dictionaries inside by their path ("string_to_param.*" of a textual inversion).
// What is no tensor is left out. In the order of their bytes, which tensors may share; transposed
// matrices and slices have strides.
//
// Input is hostile. INVALID_ARGUMENT: no dictionary, or dictionaries in over 16 levels; a name that
// is long, twice there or not UTF-8; a tensor that is not inside its storage, or whose elements lie
// on each other.
absl::StatusOr<TensorIndex> IndexTensors(const Pickle& pickle, StorageLocator locate);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_TORCH_TENSORS_H_
