// The files of TLS, looked at before gRPC gets them: it only tells clients' handshakes, and no
// operator, what is wrong with them.
#ifndef SERVER_TLS_H_
#define SERVER_TLS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace distorch {

// File names; PEM.
struct TlsFiles {
  std::string cert;       // the server's certificate, and those between it and its authority
  std::string key;        // of the certificate; not encrypted
  std::string client_ca;  // who signs clients' certificates, which are then asked for; or empty

  bool enabled() const { return !cert.empty() || !key.empty() || !client_ca.empty(); }
};

// What the files are, in a phrase: "CN = gpu-box, until 2027-01-31; clients need certificates".
// Errors name the flag and the file: NOT_FOUND, PERMISSION_DENIED, or INVALID_ARGUMENT for a flag
// without its fellow, what is no PEM, a key that is encrypted or not the certificate's, and a
// certificate that has expired or is not valid yet.
absl::StatusOr<std::string> CheckTls(const TlsFiles& files);

}  // namespace distorch

#endif  // SERVER_TLS_H_
