// distorchctl: a daemon's services from the command line.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cpp/canceller.h"
#include "client/ctl/commands.h"
#include "client/ctl/interrupt.h"
#include "client/ctl/session.h"
#include "client/ctl/validators.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

constexpr int kFailure = 1;
constexpr int kUsage = 2;

constexpr char kFooter[] =
    "Exit status: 0 success, 1 the call failed, 2 wrong usage, 130 interrupted.\n"
    "Results go to standard output; progress and 'distorchctl: CODE: message' to standard "
    "error.\n\n"
    "Environment: DISTORCHD_ADDRESS (as --address), DISTORCHD_ROUTE_CHECKPOINT, DISTORCH_TOKEN\n"
    "(as the content of --token_file; DISTORCHD_AUTH_TOKEN is the same).\n\n"
    "Examples:\n"
    "  distorchctl devices\n"
    "  distorchctl load sd15.safetensors --unet_virtual_vram_gb=2\n"
    "  distorchctl infer --prompt='a lighthouse at dusk' --output=lighthouse.png\n"
    "  distorchctl unload --all\n"
    "'distorchctl COMMAND --help' tells more.";

void AddGlobalFlags(CLI::App& app, GlobalFlags& flags) {
  app.add_option("--address", flags.address, "The daemon")
      ->type_name("HOST:PORT")
      ->envname("DISTORCHD_ADDRESS")
      ->capture_default_str();
  app.add_flag("--json", flags.json, "Print one JSON object and no progress");
  app.add_option("--timeout", flags.timeout, "Give up on a call after this time; 0: never")
      ->type_name("SECONDS")
      ->check(NotNegative())
      ->capture_default_str();
  app.add_flag("--tls", flags.tls, "Connect with TLS, trusting the system's authorities");
  app.add_option("--tls_ca", flags.tls_ca, "Connect with TLS, trusting this authority (PEM)")
      ->type_name("FILE");
  app.add_option("--tls_cert", flags.tls_cert, "This client's certificate (PEM), with --tls_key")
      ->type_name("FILE");
  app.add_option("--tls_key", flags.tls_key, "This client's private key (PEM), with --tls_cert")
      ->type_name("FILE");
  app.add_option("--token_file,--auth_token_file", flags.auth_token_file,
                 "A file with the token to send")
      ->type_name("FILE");
  app.add_option("--route_checkpoint", flags.route_checkpoint,
                 "For a proxy in front of several daemons: send the call where the calls of this "
                 "checkpoint go")
      ->type_name("CKPT_NAME")
      ->envname("DISTORCHD_ROUTE_CHECKPOINT");
  for (const char* name : {"DISTORCHD_AUTH_TOKEN", "DISTORCH_TOKEN"}) {
    if (const char* token = std::getenv(name)) flags.auth_token = token;
  }
}

void AddCommands(CLI::App& app, Run& run) {
  AddDevices(app, run);
  AddLinks(app, run);
  AddCheckpoints(app, run);
  AddPlan(app, run);
  AddLoad(app, run);
  AddModels(app, run);
  AddInfer(app, run);
  AddEncode(app, run);
  AddLora(app, run);
  AddClipSkip(app, run);
  AddUnload(app, run);
  AddTop(app, run);
  for (CLI::App* command : app.get_subcommands(nullptr)) command->fallthrough();
}

void PrintError(const absl::Status& status) {
  std::string message = absl::StrCat("distorchctl: ", absl::StatusCodeToString(status.code()), ": ",
                                     status.message(), "\n");
  std::fputs(message.c_str(), stderr);
}

absl::Status RunCommand(const GlobalFlags& flags, const Run& run, client::Canceller* canceller) {
  ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::Open(flags, canceller));
  RETURN_IF_ERROR(run(*session));
  if (std::fflush(stdout) != 0) return absl::DataLossError("cannot write to standard output");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("Loads diffusion checkpoints on a distorchd daemon and draws with them.",
               "distorchctl");
  GlobalFlags flags;
  Run run;
  app.set_version_flag("--version", "distorchctl " DISTORCH_VERSION);
  app.footer(kFooter);
  app.require_subcommand(1);
  AddGlobalFlags(app, flags);
  AddCommands(app, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help and --version
    PrintError(absl::InvalidArgumentError(error.what()));
    auto chosen = app.get_subcommands();
    std::fprintf(stderr, "Try 'distorchctl %s--help'.\n",
                 chosen.empty() ? "" : absl::StrCat(chosen.front()->get_name(), " ").c_str());
    return kUsage;
  }

  client::Canceller canceller;
  Interrupt interrupt(&canceller);
  absl::Status status = RunCommand(flags, run, &canceller);
  if (status.ok()) return 0;
  if (absl::IsCancelled(status) && interrupt.signal() != 0) {
    PrintError(absl::CancelledError("interrupted"));
    return 128 + interrupt.signal();
  }
  PrintError(status);
  return kFailure;
}

}  // namespace
}  // namespace distorch::ctl

int main(int argc, char** argv) { return distorch::ctl::Main(argc, argv); }
