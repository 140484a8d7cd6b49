// The files that torch.save writes since PyTorch 1.6 (.ckpt, .pt, .pth, .bin): a zip archive of
//   NAME/data.pkl    a pickle of the saved object; its tensors refer to storages by key
//   NAME/data/KEY    a storage's bytes
//   NAME/byteorder   "little" or "big", in newer files
#ifndef LIB_CHECKPOINT_TORCH_ARCHIVE_H_
#define LIB_CHECKPOINT_TORCH_ARCHIVE_H_

#include "absl/status/statusor.h"
#include "lib/checkpoint/byte_source.h"
#include "lib/checkpoint/tensor_index.h"

namespace distorch {

// The tensors, as IndexTensors has them (torch_tensors.h). Offsets are from the start of the file.
//
// Input is hostile, and nothing is executed (lib/checkpoint/pickle.h). INVALID_ARGUMENT with what
// is wrong and where: the archive, an entry that is missing, compressed or overlaps another; the
// pickle; a tensor.
absl::StatusOr<TensorIndex> ReadTorchArchive(const ByteSource& file);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_TORCH_ARCHIVE_H_
