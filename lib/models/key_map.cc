#include "lib/models/key_map.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace distorch::models {

NamedTensors MapKeys(const TensorIndex& index, std::span<const KeyRule> rules) {
  NamedTensors named;
  for (const TensorInfo& tensor : index.tensors()) {
    for (const KeyRule& rule : rules) {
      if (!absl::StartsWith(tensor.name, rule.from)) continue;
      named.emplace(absl::StrCat(rule.to, std::string_view(tensor.name).substr(rule.from.size())),
                    NamedTensor(&tensor));
      break;
    }
  }
  return named;
}

}  // namespace distorch::models
