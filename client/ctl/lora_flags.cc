#include "client/ctl/lora_flags.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

// Cuts ":NUMBER" off the end of `text`; names may have colons, too.
std::optional<double> CutNumber(std::string& text) {
  const size_t colon = text.rfind(':');
  double number = 0;
  if (colon == std::string::npos || !absl::SimpleAtod(text.substr(colon + 1), &number))
    return std::nullopt;
  text.resize(colon);
  return number;
}

}  // namespace

absl::StatusOr<std::set<std::string>> OpenHandles(Session& session) {
  ASSIGN_OR_RETURN(v1::ListModelsResponse loaded, session.client().ListModels(session.call()));
  std::set<std::string> handles;
  for (const v1::ModelInfo& model : loaded.models()) handles.insert(model.handle());
  return handles;
}

std::optional<LoraFlag> ParseLoraFlag(const std::string& text) {
  LoraFlag flag;
  flag.name = text;
  const std::optional<double> last = CutNumber(flag.name);
  const std::optional<double> before = last ? CutNumber(flag.name) : std::nullopt;
  if (last) flag.strength_model = before.value_or(*last);
  if (last) flag.strength_clip = *last;
  if (flag.name.empty()) return std::nullopt;
  return flag;
}

void AddLoraFlag(CLI::App& app, const std::string& when, std::vector<LoraFlag>& loras) {
  app.add_option_function<std::vector<std::string>>(
         "--lora",
         [&loras](const std::vector<std::string>& texts) {
           for (const std::string& text : texts) loras.push_back(*ParseLoraFlag(text));
         },
         "Apply this LoRA" + when +
             ", on the UNet or DiT and the text encoders; may be given "
             "several times")
      ->type_name("NAME[:STRENGTH[:CLIP_STRENGTH]]")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::Validator(
          [](const std::string& text) {
            return ParseLoraFlag(text) ? "" : "'" + text + "' names no LoRA";
          },
          ""));
}

absl::StatusOr<std::vector<std::string>> ApplyLoras(Session& session,
                                                    const std::vector<LoraFlag>& loras,
                                                    std::string& model, std::string& clip) {
  std::vector<std::string> made;
  if (loras.empty()) return made;
  ASSIGN_OR_RETURN(std::set<std::string> known, OpenHandles(session));
  for (const LoraFlag& lora : loras) {
    v1::ApplyLoraRequest request;
    request.set_model(model);
    request.set_clip(clip);
    request.set_lora_name(lora.name);
    request.set_strength_model(lora.strength_model);
    request.set_strength_clip(lora.strength_clip);
    absl::StatusOr<v1::ApplyLoraResponse> applied =
        session.client().ApplyLora(request, session.call());
    if (!applied.ok()) {
      CloseLoras(session, made).IgnoreError();  // the first error says more
      return applied.status();
    }
    model = applied->model();
    clip = applied->clip();
    for (const std::string& handle : {model, clip}) {
      if (!handle.empty() && known.insert(handle).second) made.push_back(handle);
    }
  }
  return made;
}

absl::Status CloseLoras(Session& session, const std::vector<std::string>& handles) {
  if (handles.empty()) return absl::OkStatus();
  v1::UnloadRequest request;
  for (const std::string& handle : handles) request.add_handles(handle);
  return session.client().Unload(request, session.call()).status();
}

}  // namespace distorch::ctl
