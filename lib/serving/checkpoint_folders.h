// The folders where checkpoints lie, as ComfyUI's users keep them: one or more roots,
// extra_model_paths.yaml, subfolders.
#ifndef LIB_SERVING_CHECKPOINT_FOLDERS_H_
#define LIB_SERVING_CHECKPOINT_FOLDERS_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace distorch {

// The folders of one kind of model. Immutable and thread-safe; every call looks at the disk anew.
class ModelFolders {
 public:
  // `kind` is how errors name what is looked for: "checkpoint", "lora", "embedding".
  ModelFolders(std::string kind, std::vector<std::string> roots);

  // Names relative to their root with '/' between the parts, sorted, each once (the first root that
  // has it wins), of all files with an extension that ComfyUI lists (.safetensors .sft .ckpt .pt
  // .pt2 .pth .bin .pkl .gguf), in any case; a diffusers folder (it has a model_index.json) by the
  // folder's name, and a model in shards by its index (NAME.safetensors.index.json). Each folder is
  // entered once, however many symbolic links lead to it. Folders that cannot be read are skipped,
  // and so are names that Resolve would not take: those with a backslash or not UTF-8.
  std::vector<std::string> List() const;

  // The path of the file or diffusers folder that `name` stands for, in the first root that has it.
  // INVALID_ARGUMENT when the name is empty, absolute, not UTF-8, or has a component "..", a NUL or
  // a backslash; NOT_FOUND, with at most five of the nearest existing names (by edit distance,
  // case, folder and extension aside), when no root has it. A symbolic link inside a root may point
  // outside of it: who may write the folder decides that, not who names files.
  absl::StatusOr<std::string> Resolve(std::string_view name) const;
  // The same where names are written loosely, as prompts name embeddings: `name` may lack one of
  // `extensions`, and the folders inside the root that lead to it. A file right under a root wins,
  // then an earlier extension.
  absl::StatusOr<std::string> Find(std::string_view name,
                                   std::span<const std::string_view> extensions) const;

  const std::vector<std::string>& roots() const { return roots_; }

 private:
  absl::Status CheckName(std::string_view name) const;
  // The path of the file of exactly that name, or "".
  std::string PathOf(std::string_view name) const;
  absl::Status NotFound(std::string_view name) const;

  std::string kind_;
  std::vector<std::string> roots_;
};

struct ExtraModelPaths {
  std::vector<std::string> checkpoints, loras, embeddings, vae_approx;
};

// Reads ComfyUI's extra_model_paths.yaml: each top-level entry has an optional base_path and
// is_default (its folders come first), and folder lists, one path a line. Relative paths start at
// base_path, a relative base_path at the file's own folder; a leading "~", $NAME and ${NAME} are
// expanded, unset variables stay as they are. The folders come out absolute, each once, in the
// order written. Keys we do not use are ignored. INVALID_ARGUMENT naming the file and line when it
// is not such a file.
absl::StatusOr<ExtraModelPaths> ReadExtraModelPaths(const std::string& yaml_path);
// The same from text; `origin` is the file's path.
absl::StatusOr<ExtraModelPaths> ParseExtraModelPaths(const std::string& yaml,
                                                     const std::string& origin);

}  // namespace distorch

#endif  // LIB_SERVING_CHECKPOINT_FOLDERS_H_
