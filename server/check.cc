#include "server/check.h"

#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/tls.h"
#include "server/tokens_file.h"

namespace distorch {
namespace {

class Report {
 public:
  explicit Report(std::ostream* out) : out_(out) {}

  void Ok(std::string_view what, std::string_view text) { Line("ok", what, text); }
  void Warning(std::string_view what, std::string_view text) {
    ++warnings_;
    Line("warning", what, text);
  }
  void Failed(std::string_view what, std::string_view text) {
    ++failures_;
    Line("failed", what, text);
  }
  bool Finish() {
    *out_ << (failures_ == 0 ? "distorchd can start" : "distorchd cannot work so") << ": "
          << failures_ << " failed, " << warnings_
          << (warnings_ == 1 ? " warning\n" : " warnings\n");
    return failures_ == 0;
  }

 private:
  void Line(std::string_view state, std::string_view what, std::string_view text) {
    *out_ << absl::StrFormat("%-8s %-18s %s\n", state, what, text);
  }

  std::ostream* const out_;
  int failures_ = 0;
  int warnings_ = 0;
};

void CheckListening(const Options& options, Report* report) {
  report->Ok("listen_address", options.listen_address);
  report->Ok("metrics_address",
             options.metrics_address.empty() ? "nowhere" : options.metrics_address);
  if (!options.tls.enabled()) {
    report->Ok("tls", "off");
    return;
  }
  const absl::StatusOr<std::string> tls = CheckTls(options.tls);
  if (tls.ok()) {
    report->Ok("tls", *tls);
  } else {
    report->Failed("tls", tls.status().message());
  }
}

void CheckTokens(const std::string& path, Report* report) {
  constexpr std::string_view kName = "auth_tokens_file";
  if (path.empty()) return report->Ok(kName, "none: everyone is an admin");
  const absl::StatusOr<std::vector<Token>> tokens = ReadTokens(path);
  if (!tokens.ok()) return report->Failed(kName, tokens.status().message());
  std::map<std::string_view, int> roles;
  for (const Token& token : *tokens) ++roles[RoleName(token.role)];
  report->Ok(kName,
             absl::StrCat(path, ": ", absl::StrJoin(roles, ", ", absl::PairFormatter(": "))));
  if (EveryoneCanRead(path)) report->Warning(kName, "everyone on this machine can read it");
}

void CheckFolders(std::string_view what, const std::vector<std::string>& folders, Report* report) {
  for (const std::string& folder : folders) {
    std::error_code error;
    const std::filesystem::directory_iterator entries(folder, error);
    if (error) {
      report->Failed(what, absl::StrCat(folder, ": ", error.message()));
    } else {
      report->Ok(what, folder);
    }
  }
}

void CheckPortFile(const std::string& path, Report* report) {
  if (path.empty()) return;
  const std::string parent = std::filesystem::path(path).parent_path();
  if (access(parent.empty() ? "." : parent.c_str(), W_OK | X_OK) != 0) {
    report->Failed("port_file", absl::StrCat(path, ": its folder cannot be written to"));
  } else {
    report->Ok("port_file", path);
  }
}

void CheckStateFolder(const std::string& path, Report* report) {
  if (path.empty()) return;
  std::filesystem::path there = path;  // what is missing is made at the start
  std::error_code ignored;
  while (there.has_relative_path() && !std::filesystem::exists(there, ignored))
    there = there.parent_path();
  if (!std::filesystem::is_directory(there.empty() ? "." : there, ignored) ||
      access(there.empty() ? "." : there.c_str(), W_OK | X_OK) != 0) {
    report->Failed("state_dir", absl::StrCat(path, ": cannot be written to"));
  } else {
    report->Ok("state_dir", path);
  }
}

void CheckDevices(DaemonCore* core, Report* report) {
  constexpr double kGiB = 1 << 30;
  for (const DeviceInfo& device : core->ListDevices()) {
    report->Ok("device",
               absl::StrFormat("%s (%s): %.1f GiB, %.1f GiB free", device.name, device.kind,
                               static_cast<double>(device.total_bytes) / kGiB,
                               static_cast<double>(device.free_bytes) / kGiB));
  }
}

void CheckCheckpoints(DaemonCore* core, Report* report) {
  int usable = 0;
  for (const CheckpointInfo& checkpoint : core->ListCheckpoints()) {
    if (checkpoint.error.empty()) {
      ++usable;
    } else {
      report->Warning("checkpoint", absl::StrCat(checkpoint.ckpt_name, ": ", checkpoint.error));
    }
  }
  const std::string text = absl::StrCat(usable, " can be loaded");
  if (usable > 0) {
    report->Ok("checkpoints", text);
  } else {
    report->Warning("checkpoints", text);
  }
}

}  // namespace

bool CheckSetup(const Options& options, const absl::StatusOr<std::unique_ptr<DaemonCore>>& core,
                std::ostream* out) {
  Report report(out);
  CheckListening(options, &report);
  CheckTokens(options.auth_tokens_file, &report);
  CheckFolders("checkpoint_dirs", options.core.checkpoint_dirs, &report);
  CheckFolders("lora_dirs", options.core.lora_dirs, &report);
  CheckFolders("embedding_dirs", options.core.embedding_dirs, &report);
  CheckFolders("vae_approx_dirs", options.core.vae_approx_dirs, &report);
  CheckPortFile(options.port_file, &report);
  CheckStateFolder(options.core.state_dir, &report);
  if (core.ok()) {
    CheckDevices(core->get(), &report);
    CheckCheckpoints(core->get(), &report);
  } else {
    report.Failed("devices", core.status().message());
  }
  return report.Finish();
}

}  // namespace distorch
