// The textual inversions that one prompt names, from the folders of embeddings.
#ifndef LIB_SERVING_PROMPT_EMBEDDINGS_H_
#define LIB_SERVING_PROMPT_EMBEDDINGS_H_

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/serving/checkpoint_folders.h"
#include "lib/text/text_encoder.h"

namespace distorch {

// For one request; not thread-safe.
class PromptEmbeddings : public text::EmbeddingSource {
 public:
  // `folders` must outlive it.
  explicit PromptEmbeddings(const ModelFolders* folders) : folders_(folders) {}

  // A name is that of a file in a folder or in a folder inside it, with or without extension
  // (ModelFolders::Find).
  absl::StatusOr<at::Tensor> Load(std::string_view name, std::string_view transformer) override;
  void Ignored(std::string_view name, const absl::Status& why) override;

  // What was ignored, each once, for who wrote the prompt.
  std::vector<std::string> warnings() const { return {warnings_.begin(), warnings_.end()}; }
  // Which files were read, by their content: equal where the same prompt means the same.
  std::string identity() const;

 private:
  const ModelFolders* const folders_;
  std::set<std::string> warnings_;
  std::set<std::string> read_;  // a name and the file's fingerprint
};

}  // namespace distorch

#endif  // LIB_SERVING_PROMPT_EMBEDDINGS_H_
