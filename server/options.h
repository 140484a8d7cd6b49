// distorchd's settings: one table of flags, read from the command line, the environment and a YAML
// file.
#ifndef SERVER_OPTIONS_H_
#define SERVER_OPTIONS_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/serving/daemon_core.h"
#include "server/request_limits.h"
#include "server/tls.h"

namespace distorch {

struct Options {
  CoreOptions core;
  std::string listen_address = "127.0.0.1:50051";  // port 0: any free one
  std::string metrics_address = "127.0.0.1:9464";  // the same; empty: no metrics
  bool allow_insecure_listen = false;
  std::string auth_tokens_file;  // empty: no tokens are asked for
  TlsFiles tls;
  int max_receive_mb = 256;
  int max_metadata_kb = 16;           // of headers, each call
  int max_concurrent_streams = 2048;  // calls at a time, each connection
  RequestLimits limits;
  std::string http_api = "auto";  // "on", "off"; "auto": on loopback only
  int page_images = 0;            // that the status page shows
  double drain_seconds = 20;
  std::string port_file;  // empty: none
  std::string log_level = "info";
  std::string log_format = "text";
};

struct CommandLine {
  enum class Action { kServe, kCheck, kPrintHelp, kPrintVersion };
  Action action = Action::kServe;
  Options options;
};

// Value of an environment variable, or nullopt when it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
Environment ProcessEnvironment();

// Reads every setting. The command line wins over DISTORCHD_NAME_IN_CAPS in the environment, which
// wins over the YAML file named by --config, which wins over the default. `args` excludes the
// program's name. INVALID_ARGUMENT naming the source, the flag and what is allowed; unknown flags
// and unknown YAML keys are errors. Unknown DISTORCHD_ variables are not: orchestrators set such
// names for services called distorchd.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& args,
                                             const Environment& environment);

// What --help prints: every flag with its default.
std::string HelpText();

// "0.1.0".
std::string_view DistorchdVersion();

struct HostPort {
  std::string host;
  int port = 0;
};
// Whether only this machine reaches `host`.
bool IsLoopback(const std::string& host);
// Parses "HOST:PORT" or "[IPV6]:PORT".
absl::StatusOr<HostPort> ParseHostPort(std::string_view text);
// The inverse.
std::string FormatHostPort(const HostPort& address);

}  // namespace distorch

#endif  // SERVER_OPTIONS_H_
