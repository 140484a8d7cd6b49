// --lora: adapters for the time of one command.
#ifndef CLIENT_CTL_LORA_FLAGS_H_
#define CLIENT_CTL_LORA_FLAGS_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/ctl/session.h"

namespace distorch::ctl {

struct LoraFlag {
  std::string name;
  double strength_model = 1, strength_clip = 1;
};

// "NAME", "NAME:STRENGTH" or "NAME:STRENGTH:CLIP_STRENGTH", where STRENGTH alone is both; nullopt
// for a text without a name.
std::optional<LoraFlag> ParseLoraFlag(const std::string& text);

// Declares --lora, which may be given several times. `loras` must outlive the parse.
void AddLoraFlag(CLI::App& app, std::vector<LoraFlag>& loras);

// Stacks `loras` on the handles `model` and `clip` and puts those of the stack in their place.
// Returns the handles that this made, also those in between; after an error they are closed.
absl::StatusOr<std::vector<std::string>> ApplyLoras(Session& session,
                                                    const std::vector<LoraFlag>& loras,
                                                    std::string& model, std::string& clip);
// Closes what ApplyLoras returned.
absl::Status CloseLoras(Session& session, const std::vector<std::string>& handles);

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_LORA_FLAGS_H_
