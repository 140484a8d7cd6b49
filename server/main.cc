// distorchd: settings, then a core, then a server around it.
#include <csignal>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/base/status_macros.h"
#include "lib/serving/daemon_core.h"
#include "lib/serving/observer.h"
#include "server/access.h"
#include "server/check.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/options.h"
#include "server/server.h"

namespace distorch {
namespace {

// A typing error in a folder's name would otherwise only show as a missing checkpoint.
void WarnOfMissingFolders(const Options& options, Logger* logger) {
  for (const auto* dirs : {&options.core.checkpoint_dirs, &options.core.lora_dirs,
                           &options.core.embedding_dirs, &options.core.vae_approx_dirs}) {
    for (const std::string& dir : *dirs) {
      std::error_code ignored;
      if (!std::filesystem::is_directory(dir, ignored))
        logger->Warning("no such folder", {{"path", dir}});
    }
  }
}

// What the core tells: numbers are counted, sentences are logged.
class CoreObserver final : public Metrics {
 public:
  CoreObserver(const BuildInfo& build, Logger* logger) : Metrics(build), logger_(logger) {}

  void Warning(std::string_view message) override { logger_->Warning(message); }

 private:
  Logger* const logger_;
};

absl::Status RunDaemon(const Options& options, Logger* logger) {
  WarnOfMissingFolders(options, logger);
  ASSIGN_OR_RETURN(const std::unique_ptr<Access> access,
                   Access::Create(options.auth_tokens_file, logger));
  CoreObserver observer({std::string(DistorchdVersion()), TorchVersion(), CudaVersion()}, logger);
  ASSIGN_OR_RETURN(const std::unique_ptr<DaemonCore> core,
                   DaemonCore::Create(options.core, &observer));
  return Serve(options, core.get(), access.get(), &observer, logger);
}

bool Check(const Options& options) {
  CoreOptions core = options.core;
  core.state_dir.clear();  // a daemon may be using it
  return CheckSetup(options, DaemonCore::Create(core, nullptr), &std::cout);
}

int Main(const std::vector<std::string>& args) {
  BlockSignals();
  std::signal(SIGPIPE, SIG_IGN);
  const absl::StatusOr<CommandLine> command = ParseCommandLine(args, ProcessEnvironment());
  if (!command.ok()) {
    std::cerr << "distorchd: " << command.status().message()
              << "\n(distorchd --help lists every setting)\n";
    return 1;
  }
  if (command->action == CommandLine::Action::kPrintHelp) {
    std::cout << HelpText();
    return 0;
  }
  if (command->action == CommandLine::Action::kPrintVersion) {
    std::cout << "distorchd " << DistorchdVersion() << " (LibTorch " << TorchVersion() << ", CUDA "
              << (CudaVersion().empty() ? "none" : CudaVersion()) << ")\n";
    return 0;
  }
  if (command->action == CommandLine::Action::kCheck) return Check(command->options) ? 0 : 1;
  Logger logger(command->options.log_level, command->options.log_format);
  const absl::Status status = RunDaemon(command->options, &logger);
  if (!status.ok()) {
    logger.Error("cannot serve", {{"error", std::string(status.message())}});
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace distorch

int main(int argc, char** argv) { return distorch::Main({argv + 1, argv + argc}); }
