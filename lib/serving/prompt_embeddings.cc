#include "lib/serving/prompt_embeddings.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/text/textual_inversion.h"

namespace distorch {

namespace {

constexpr std::string_view kExtensions[] = {".safetensors", ".pt", ".bin"};

}  // namespace

absl::StatusOr<at::Tensor> PromptEmbeddings::Load(std::string_view name,
                                                  std::string_view transformer) {
  ASSIGN_OR_RETURN(const std::string path, folders_->Find(name, kExtensions));
  ASSIGN_OR_RETURN(const std::shared_ptr<const CheckpointFile> file, CheckpointFile::Open(path));
  ASSIGN_OR_RETURN(const std::string fingerprint, file->Fingerprint());
  read_.insert(absl::StrCat(Quoted(name), " ", fingerprint));
  return text::ReadTextualInversion(*file, transformer);
}

void PromptEmbeddings::Ignored(std::string_view name, const absl::Status& why) {
  warnings_.insert(absl::StrCat("embedding ", Quoted(name), " is ignored: ", why.message()));
}

std::string PromptEmbeddings::identity() const { return absl::StrJoin(read_, "\n"); }

}  // namespace distorch
