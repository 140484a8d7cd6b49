// What every command of distorchctl works with: the connection, the global flags, and where it
// prints.
#ifndef CLIENT_CTL_SESSION_H_
#define CLIENT_CTL_SESSION_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "client/cpp/client.h"
#include "client/ctl/progress.h"
#include "client/ctl/render.h"

namespace distorch::ctl {

// The flags before the command, with their defaults.
struct GlobalFlags {
  std::string address = "127.0.0.1:50051";
  bool json = false;
  double timeout = 0;  // seconds; 0: no limit
  bool tls = false;
  std::string tls_ca, tls_cert, tls_key;  // file names; any of them turns TLS on
  std::string auth_token_file;
  std::string route_checkpoint;
  std::string auth_token;  // from the environment only: others can read a command line
};

class Session {
 public:
  // Reads the files that the flags name. `canceller` must outlive the session.
  static absl::StatusOr<std::unique_ptr<Session>> Open(const GlobalFlags& flags,
                                                       client::Canceller* canceller);

  client::Client& client() { return *client_; }
  const std::string& address() const { return address_; }
  // For each call; the timeout counts from the call's start.
  client::CallOptions call() const { return call_; }
  bool json() const { return json_; }
  // Of standard output, where results go.
  const Terminal& terminal() const { return terminal_; }

  // Progress goes to standard error, so that standard output holds results only; nowhere with
  // --json.
  Progress NewProgress() const;
  // To standard output: `text` as it is, an object indented and with a line end.
  void Print(std::string_view text) const;
  void PrintJson(const nlohmann::ordered_json& object) const;

 private:
  Session(const GlobalFlags& flags, std::unique_ptr<client::Client> client,
          const client::CallOptions& call);

  const std::string address_;
  const std::unique_ptr<client::Client> client_;
  const client::CallOptions call_;
  const bool json_;
  const Terminal terminal_;
};

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_SESSION_H_
