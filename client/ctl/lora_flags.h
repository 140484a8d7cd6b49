// --lora: adapters on the handles that a command uses.
#ifndef CLIENT_CTL_LORA_FLAGS_H_
#define CLIENT_CTL_LORA_FLAGS_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <set>
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

// Declares --lora, which may be given several times: "Apply this LoRA" and `when`. `loras` must
// outlive the parse.
void AddLoraFlag(CLI::App& app, const std::string& when, std::vector<LoraFlag>& loras);

absl::StatusOr<std::set<std::string>> OpenHandles(Session& session);

// Stacks `loras` on the handles `model` and `clip` and puts those of the stack in their place.
// Returns the handles that this made, also those in between; after an error they are closed.
absl::StatusOr<std::vector<std::string>> ApplyLoras(Session& session,
                                                    const std::vector<LoraFlag>& loras,
                                                    std::string& model, std::string& clip);
// Closes what ApplyLoras returned.
absl::Status CloseLoras(Session& session, const std::vector<std::string>& handles);

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_LORA_FLAGS_H_
