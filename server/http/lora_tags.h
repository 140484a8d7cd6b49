// Adapters in a prompt, as WebUI writes them: <lora:NAME>, <lora:NAME:STRENGTH>,
// <lora:NAME:OF_TEXT_ENCODERS:OF_MODEL>, or by name: <lora:NAME:te=0.5:unet=1>; "lyco" means the
// same.
#ifndef SERVER_HTTP_LORA_TAGS_H_
#define SERVER_HTTP_LORA_TAGS_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/serving/infer_spec.h"

namespace distorch {

inline constexpr std::size_t kMaxLoraTags = 32;

struct TaggedPrompt {
  std::string text;  // without the tags
  std::vector<InferLora> loras;
};

// What is no whole tag stays in the text. INVALID_ARGUMENT, with the tag: one without a name, a
// strength that is no number, something else beside it, over kMaxLoraTags.
absl::StatusOr<TaggedPrompt> ReadLoraTags(std::string_view prompt);

// The one of `names`, files relative to their folders, that `name` stands for: itself, or the first
// that is called so but for its folders and extension. `name` when there is none.
std::string FindLora(std::string_view name, const std::vector<std::string>& names);

}  // namespace distorch

#endif  // SERVER_HTTP_LORA_TAGS_H_
