// Which files make up a checkpoint: one; the shards that an index lists, as Hugging Face's
// libraries cut large models; or a diffusers folder, with a model a subfolder.
#ifndef LIB_CHECKPOINT_CHECKPOINT_PARTS_H_
#define LIB_CHECKPOINT_CHECKPOINT_PARTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace distorch {

struct CheckpointPart {
  std::string path;
  std::string prefix;  // before the names of its tensors: "unet."
};

struct CheckpointParts {
  std::vector<CheckpointPart> files;
  // Tensors, prefix included, that an index says are there.
  std::vector<std::string> promised;
};

// The file that marks a diffusers folder.
inline constexpr char kDiffusersIndex[] = "model_index.json";

// `path` is a file; an index (NAME.safetensors.index.json) or one of its shards beside it, which
// both stand for the whole; or a folder with a model_index.json. NOT_FOUND or INVALID_ARGUMENT,
// naming the file, for an index that is malformed or points out of its folder, or a folder without
// a diffusion model.
absl::StatusOr<CheckpointParts> FindCheckpointParts(const std::string& path);

}  // namespace distorch

#endif  // LIB_CHECKPOINT_CHECKPOINT_PARTS_H_
