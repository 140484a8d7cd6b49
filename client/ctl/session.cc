#include "client/ctl/session.h"

#include <cstdio>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/time/clock.h"
#include "client/ctl/files.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

absl::StatusOr<client::ConnectOptions> ReadOptions(const GlobalFlags& flags) {
  client::ConnectOptions options;
  options.auth_token = flags.auth_token;
  options.checkpoint = flags.route_checkpoint;
  if (!flags.auth_token_file.empty()) {
    ASSIGN_OR_RETURN(std::string token, ReadFile(flags.auth_token_file));
    options.auth_token = absl::StripAsciiWhitespace(token);
  }
  bool any_file = !(flags.tls_ca.empty() && flags.tls_cert.empty() && flags.tls_key.empty());
  if (!flags.tls && !any_file) return options;
  client::TlsOptions& tls = options.tls.emplace();
  for (auto [path, text] :
       {std::pair(&flags.tls_ca, &tls.ca), std::pair(&flags.tls_cert, &tls.cert),
        std::pair(&flags.tls_key, &tls.key)}) {
    if (path->empty()) continue;
    ASSIGN_OR_RETURN(*text, ReadFile(*path));
  }
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Open(const GlobalFlags& flags,
                                                       client::Canceller* canceller) {
  ASSIGN_OR_RETURN(client::ConnectOptions options, ReadOptions(flags));
  ASSIGN_OR_RETURN(std::unique_ptr<client::Client> client,
                   client::Client::Connect(flags.address, options));
  client::CallOptions call;
  call.canceller = canceller;
  if (flags.timeout > 0) call.timeout = absl::Seconds(flags.timeout);
  return std::unique_ptr<Session>(new Session(flags, std::move(client), call));
}

Session::Session(const GlobalFlags& flags, std::unique_ptr<client::Client> client,
                 const client::CallOptions& call)
    : address_(flags.address),
      client_(std::move(client)),
      call_(call),
      json_(flags.json),
      terminal_(DetectTerminal(stdout)) {}

Progress Session::NewProgress() const {
  return Progress(json_ ? nullptr : stderr, DetectTerminal(stderr), &absl::Now);
}

void Session::Print(std::string_view text) const {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void Session::PrintJson(const nlohmann::ordered_json& object) const {
  // File names need not be UTF-8; what is not is replaced.
  Print(object.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace distorch::ctl
