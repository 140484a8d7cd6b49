// distorchd --check: what an operator wants to know before a restart.
#ifndef SERVER_CHECK_H_
#define SERVER_CHECK_H_

#include <memory>
#include <ostream>

#include "absl/status/statusor.h"
#include "lib/serving/daemon_core.h"
#include "server/options.h"

namespace distorch {

// Looks at what `options` name: certificates, tokens, folders, the port file's place; and at the
// devices and checkpoints of `core`, which is what DaemonCore::Create made of them. Writes a line
// for each to `out`, that begins with "ok", "warning" or "failed", and a summary. True when nothing
// failed. Listens nowhere, so that it can run beside the daemon.
bool CheckSetup(const Options& options, const absl::StatusOr<std::unique_ptr<DaemonCore>>& core,
                std::ostream* out);

}  // namespace distorch

#endif  // SERVER_CHECK_H_
