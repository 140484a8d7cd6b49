// Which loaded components a command means, when it does not name all of them.
#ifndef CLIENT_CTL_HANDLES_H_
#define CLIENT_CTL_HANDLES_H_

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/ctl/session.h"
#include "proto/distorch.pb.h"

namespace distorch::ctl {

// The handles a command needs, by kind ("model", "clip", "vae"); empty where none was given.
struct HandleFlags {
  std::map<std::string, std::string> handles;
  std::string ckpt_name;
};

// Declares --KIND for each kind, and --ckpt_name. `flags` must outlive the parse.
void AddHandleFlags(CLI::App& app, const std::vector<std::string>& kinds, HandleFlags& flags);

// Fills the empty handles from what is READY or, where nothing is, STORED: of the checkpoint that
// --ckpt_name names, else of the one that a given handle belongs to, else of the only one there
// is. FAILED_PRECONDITION when nothing is loaded, NOT_FOUND when the checkpoint or a
// component of it is not, INVALID_ARGUMENT (with the candidates) when more than one would do.
absl::Status FillHandles(const v1::ListModelsResponse& loaded, HandleFlags& flags);

// FillHandles with the daemon's answer; asks nothing when all handles were given.
absl::Status ResolveHandles(Session& session, HandleFlags& flags);

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_HANDLES_H_
