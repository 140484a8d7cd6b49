// Who may call what. Knows neither gRPC nor protobuf: every front door asks here, with what its
// protocol calls the authorization header, and with gRPC's full name of the method.
#ifndef SERVER_ACCESS_H_
#define SERVER_ACCESS_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/logging.h"
#include "server/tokens_file.h"

namespace distorch {

struct Principal {
  std::string name;  // the token's, for logs and quotas; empty when there are no tokens
  Role role = Role::kViewer;
};

// Thread-safe. Tokens are kept as SHA-256 digests and compared in constant time; no message and no
// line of the log has one in it.
class Access {
 public:
  // `tokens_file` empty: there are no tokens, and everyone is an admin without a name. Else its
  // errors, which name it: NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT. A file that everyone can
  // read is a warning. `logger` must outlive the object.
  static absl::StatusOr<std::unique_ptr<Access>> Create(std::string tokens_file, Logger* logger);
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;

  // Whether callers need a token.
  bool needs_token() const { return !tokens_file_.empty(); }

  // `authorization`: "Bearer TOKEN", or empty when the call has none. UNAUTHENTICATED, saying
  // whether the token is missing or unknown.
  absl::StatusOr<Principal> Authenticate(std::string_view authorization) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // `method`: "/distorch.v1.ModelService/ListDevices". PERMISSION_DENIED names the role that is
  // needed. Methods that server/methods.h does not have are for admins only.
  static absl::Status Authorize(const Principal& principal, std::string_view method);

  // Both in one.
  absl::StatusOr<Principal> Admit(std::string_view authorization, std::string_view method) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Reads the file again, and tells the log when it has changed. One that cannot be read or is
  // wrong is an error in the log (once), and the tokens stay as they were. Cheap: to be called
  // every second or so.
  void Reload() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Tokens = std::vector<Token>;
  Access(std::string tokens_file, Logger* logger);

  // Takes over the tokens of the file's text.
  absl::Status Use(const std::string& text) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string tokens_file_;
  Logger* const logger_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const Tokens> tokens_ ABSL_GUARDED_BY(mutex_);
  // Of the text, or of the error, that was last read.
  TokenDigest seen_ ABSL_GUARDED_BY(mutex_) = {};
};

}  // namespace distorch

#endif  // SERVER_ACCESS_H_
