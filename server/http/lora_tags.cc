#include "server/http/lora_tags.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

constexpr std::string_view kStarts[] = {"<lora:", "<lyco:"};

// What stands between a tag's start and its end.
absl::StatusOr<InferLora> ReadTag(std::string_view tag) {
  const auto invalid = [&](std::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(tag), " ", why));
  };
  const std::vector<std::string_view> parts = absl::StrSplit(tag, ':');
  InferLora lora;
  lora.name = parts[0];
  if (lora.name.empty()) return invalid("names no adapter");
  std::optional<double> te, unet;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::size_t equals = parts[i].find('=');
    const bool by_name = equals != std::string_view::npos;
    const std::string_view key = by_name ? parts[i].substr(0, equals) : i == 1 ? "te" : "unet";
    if ((key != "te" && key != "unet") || (!by_name && i > 2))
      return invalid("says more than strengths");
    double strength = 0;
    if (!absl::SimpleAtod(by_name ? parts[i].substr(equals + 1) : parts[i], &strength))
      return invalid("has a strength that is no number");
    (key == "te" ? te : unet) = strength;
  }
  lora.strength_clip = te.value_or(1);
  lora.strength_model = unet.value_or(lora.strength_clip);
  return lora;
}

// The file's name without folders and extension.
std::string_view Stem(std::string_view name) {
  name = name.substr(name.rfind('/') + 1);
  return name.substr(0, name.rfind('.'));
}

}  // namespace

absl::StatusOr<TaggedPrompt> ReadLoraTags(std::string_view prompt) {
  TaggedPrompt result;
  while (!prompt.empty()) {
    const std::size_t end = prompt.find('>');
    const auto start =
        std::find_if(std::begin(kStarts), std::end(kStarts),
                     [&](std::string_view tag) { return absl::StartsWith(prompt, tag); });
    if (start == std::end(kStarts) || end == std::string_view::npos) {
      const std::size_t next = prompt.find('<', 1);
      result.text += prompt.substr(0, next);
      prompt.remove_prefix(std::min(next, prompt.size()));
      continue;
    }
    if (result.loras.size() == kMaxLoraTags)
      return absl::InvalidArgumentError(absl::StrCat("has over ", kMaxLoraTags, " adapters"));
    ASSIGN_OR_RETURN(InferLora lora, ReadTag(prompt.substr(start->size(), end - start->size())));
    result.loras.push_back(std::move(lora));
    prompt.remove_prefix(end + 1);
  }
  return result;
}

std::string FindLora(std::string_view name, const std::vector<std::string>& names) {
  std::string found(name);
  if (std::find(names.begin(), names.end(), name) != names.end()) return found;
  const auto same = std::find_if(names.begin(), names.end(),
                                 [&](const std::string& file) { return Stem(file) == name; });
  return same == names.end() ? found : *same;
}

}  // namespace distorch
