// The files that torch.save wrote before PyTorch 1.6, and writes with
// _use_new_zipfile_serialization=False: pickles one after the other (a magic number, 1001, what
// machine it was, the saved object, the keys of its storages), then each storage's number of
// elements in 8 bytes, and its bytes.
#ifndef LIB_CHECKPOINT_TORCH_LEGACY_H_
#define LIB_CHECKPOINT_TORCH_LEGACY_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "lib/checkpoint/byte_source.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {

// Whether a file that begins with `start`, 64 bytes or all of it, has the magic number.
bool IsTorchLegacy(std::string_view start);

// The tensors, as IndexTensors has them (torch_tensors.h). Offsets are from the start of the file.
//
// Input is hostile, and nothing is executed (lib/checkpoint/pickle.h). INVALID_ARGUMENT with what
// is wrong and where: another protocol, a big-endian file, a pickle, a storage that is cut short or
// is not of the size that the object says, a tensor.
absl::StatusOr<TensorIndex> ReadTorchLegacy(const ByteSource& file);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_TORCH_LEGACY_H_
