// The commands of distorchctl. Each Add… declares one command with its flags and help; when the
// command line names it, `run` becomes what is to be done.
#ifndef CLIENT_CTL_COMMANDS_H_
#define CLIENT_CTL_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/status.h"
#include "client/ctl/session.h"

namespace distorch::ctl {

using Run = std::function<absl::Status(Session&)>;

void AddDevices(CLI::App& app, Run& run);
void AddLinks(CLI::App& app, Run& run);
void AddCheckpoints(CLI::App& app, Run& run);
void AddPlan(CLI::App& app, Run& run);
void AddLoad(CLI::App& app, Run& run);
void AddModels(CLI::App& app, Run& run);
void AddInfer(CLI::App& app, Run& run);
void AddEncode(CLI::App& app, Run& run);
void AddLora(CLI::App& app, Run& run);
void AddClipSkip(CLI::App& app, Run& run);
void AddUnload(CLI::App& app, Run& run);
void AddTop(CLI::App& app, Run& run);

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_COMMANDS_H_
